"""Pulling with a choice: how the quants of a repo would do on this machine, and the plan for the one that is taken."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from owm.errors import NotEnoughMemory, OwmError
from owm.events import Sink, ignore
from owm.store import pull, quants
from owm.store.checkpoint import CheckpointPlan
from owm.store.local import Store
from owm.store.pull import Look, PullPlan
from owm.store.refs import ModelRef

if TYPE_CHECKING:
    from owm.library.fitting import FitReport

MEASURED_FROM_BYTES = 512 << 20  # a download of so much takes longer than to measure the machine for it


@dataclass(frozen=True, slots=True)
class Choice:
    """What will be pulled, and what else there is.

    Attributes:
        plan: of the quant that was named, or else of the one that is best here.
        report: how each quant would do here; None where that was not looked at.
        is_chosen: no quant was named and there are several, so owm chose.
    """

    plan: PullPlan | CheckpointPlan
    report: "FitReport | None"
    is_chosen: bool

    @property
    def reason(self) -> str | None:
        """Why this quant, in one sentence; None where there was no choice."""
        return self.report.reason if self.is_chosen and self.report is not None and self.report.chosen else None

    def check_memory(self) -> None:
        """Refuse what owm has chosen itself and what this machine has no memory for.

        Raises:
            NotEnoughMemory: nothing of the repo fits.
        """
        taken = self.report.chosen if self.report is not None else None
        if not self.is_chosen or self.report is None or taken is None or taken.verdict != "no":
            return
        # One whose header could not be looked at is judged by its size, which no memory holds.
        needed = taken.need.allocated_bytes if taken.need is not None else taken.size_bytes or 0
        raise NotEnoughMemory(
            f"nothing of {self.report.model} fits the memory of this machine",
            needed=needed,
            free=self.report.machine.usable_bytes,
            hint=f"to have it all the same, name one: `owm pull {self.plan.name}`",
        )


def plan_choice(
    ref: ModelRef,
    *,
    n_ctx: int | None = None,
    measures: bool | None = None,
    is_curious: bool = True,
    is_dry: bool = False,
    store: Store,
    sink: Sink = ignore,
) -> Choice:
    """Plan a pull; where no quant is named, look which one suits this machine.

    Args:
        n_ctx: tokens that there shall be room for.
        measures: let the machine be measured for its speed if that was not done yet; None: if the download is long and
            somebody chooses by it.
        is_curious: look how it would do here even if there is nothing to choose.
        is_dry: nothing will be fetched: it is to be known how the model would do, so it counts as a choice.

    Raises:
        ModelNotFound, QuantNotFound, NoUsableFile, SourceUnreachable, AccessDenied, Unsupported.
    """
    plan = _checked(pull.plan(ref, store, sink=sink))
    is_open = names_no_quant(plan, store) and n_choices(plan) > 1
    if not is_open and not is_curious:
        return Choice(plan, None, is_open)
    if measures is None and not is_open and not is_dry:
        measures = False
    report = _fit(plan, n_ctx=n_ctx, measures=measures, store=store, sink=sink)
    if report is None or report.chosen is None or not is_open:
        return Choice(plan, report, is_open)
    if isinstance(plan, CheckpointPlan):
        return Choice(replace(plan, quant=report.chosen.label), report, is_open)
    if report.chosen.label != plan.variant.label:
        plan = pull.with_quant(plan, report.chosen.label, store)
    return Choice(plan, report, is_open)


def look(ref: ModelRef, *, store: Store, sink: Sink = ignore) -> Look:
    """Look at a model where it is published; see `owm.store.pull.look`."""
    return pull.look(ref, store, sink=sink)


def fit_of_look(
    found: Look, *, n_ctx: int | None = None, store: Store, sink: Sink = ignore
) -> "tuple[FitReport | None, OwmError | None]":
    """Find out how the quants of what is published would do here; else why there is nothing to run in it."""
    try:
        plan = _checked(pull.plan_of(found, store))
    except OwmError as problem:
        return None, problem
    return _fit(plan, n_ctx=n_ctx, measures=None, store=store, sink=sink), None


def names_no_quant(plan: PullPlan | CheckpointPlan, store: Store) -> bool:
    """Tell whether it was left to owm which quant of a repo to take."""
    asked = store.aliases.expand(plan.asked)
    return asked.quant is None and asked.file is None


def n_choices(plan: PullPlan | CheckpointPlan) -> int:
    """Return how many models the source has to choose from; the types that a checkpoint could be made into count."""
    return 2 if isinstance(plan, CheckpointPlan) else len(quants.variants(plan.offer.files))


def _checked(plan: PullPlan | CheckpointPlan) -> PullPlan | CheckpointPlan:
    """Refuse a checkpoint in a type that nothing makes."""
    from owm.library import check_type

    if isinstance(plan, CheckpointPlan):
        check_type(plan)
    return plan


def _fit(
    plan: PullPlan | CheckpointPlan, *, n_ctx: int | None, measures: bool | None, store: Store, sink: Sink
) -> "FitReport":
    from owm.library.fitting import fit_offer

    if measures is None:
        measures = (plan.size_bytes or 0) >= MEASURED_FROM_BYTES
    return fit_offer(plan, n_ctx=n_ctx, measures=measures, store=store, sink=sink)
