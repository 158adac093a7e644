"""Updating: asking the sources of stored models what they have now, and bringing that beside what is stored."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from owm.errors import NetworkError, OwmError
from owm.events import Sink, ignore
from owm.store import offline, pull, refs, updating
from owm.store.pull import PullPlan
from owm.store.shelf import Shelf
from owm.store.updating import Change, State

if TYPE_CHECKING:
    from owm.store.local import Store
    from owm.store.model import StoredModel
    from owm.store.pull import Look

N_AT_ONCE = 8  # sources that are asked side by side


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of one stored model against its source.

    Attributes:
        reason: of the state, in words that go on after a colon; None where the changes say it.
        plan: of the pull of what the source has now, if that is something else.
        problem: why the source could not be asked.
    """

    model: "StoredModel"
    name: str
    state: State
    reason: str | None = None
    changes: tuple[Change, ...] = ()
    plan: PullPlan | None = None
    problem: OwmError | None = None


def chosen(names: Sequence[str], store: "Store") -> list["StoredModel"]:
    """Return all models that names stand for, each once: one name of a repo may be several quants, and old ones of it.

    Raises:
        ModelNotFound: nothing stored has such a name.
    """
    stored = store.models()
    if not names:
        return stored
    shelf = Shelf(stored)
    found: dict[object, StoredModel] = {}
    for name in names:
        ref = store.aliases.expand(refs.parse(name))
        some = [] if ref.kind == "path" else shelf.named(store.candidates(ref))
        for model in some or [store.find_exactly(name)]:
            found[model.folder or model.path] = model
    return list(found.values())


def check(models: Sequence["StoredModel"], store: "Store", *, sink: Sink = ignore) -> list[Checked]:
    """Ask the sources of models what they have; each repo once, several at a time.

    Raises:
        SourceUnreachable: offline.
    """
    among = store.models()
    shelf = Shelf(among)
    known = [updating.state_without_asking(model, among) for model in models]
    to_ask = sorted({model.manifest.ref for model, state in zip(models, known, strict=True)
                     if state is None and model.manifest})  # fmt: skip
    if to_ask:
        offline.refuse("no source is asked what it has")
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        answers = dict(zip(to_ask, pool.map(lambda ref: _ask(ref, store), to_ask), strict=True))
    checked = []
    for model, state in zip(models, known, strict=True):
        name = store.shown_name(model, shelf)
        if state is not None:
            checked.append(Checked(model, name, state[0], state[1]))
            continue
        assert model.manifest is not None
        checked.append(_compare(model, name, answers[model.manifest.ref], store))
    return checked


def _ask(ref: str, store: "Store") -> "Look | OwmError":
    try:
        return pull.look(refs.parse(ref), store)
    except OwmError as problem:
        return problem


def _compare(model: "StoredModel", name: str, answer: "Look | OwmError", store: "Store") -> Checked:
    of = model.manifest
    assert of is not None
    try:
        if isinstance(answer, OwmError):
            raise answer
        plan = updating.plan_again(answer, model, store)
        state, changes = updating.compare(of, plan)
    except OwmError as problem:
        reason = str(problem) if isinstance(problem, NetworkError) else f"its source has it no more: {problem}"
        return Checked(model, name, "unknown", reason, problem=problem)
    if state == "stale":
        return Checked(model, name, state, None, (*changes, *_changes_of_header(model, plan, store)), plan)
    if state == "unknown":
        return Checked(model, name, state, "its source does not say whether the content has changed")
    is_elsewhere = plan.offer.commit != of.commit and of.commit is not None
    return Checked(model, name, state, "its files are the same in a newer commit" if is_elsewhere else None)


def _changes_of_header(model: "StoredModel", plan: PullPlan, store: "Store") -> tuple[Change, ...]:
    """Compare what headers say, as far as the source lets them be read before a download."""
    from owm.fit import header
    from owm.formats import gguf

    try:
        with store.reading(model):
            before = gguf.read_header(model.files[0])
        remote = header.fetch(plan.source, plan.offer, plan.variant.files[0])
        with header.hollow([remote]) as opened:
            after = opened[0]
            changes = []
            if before.text("tokenizer.chat_template") != after.text("tokenizer.chat_template"):
                changes.append(Change("chat template changed", None, None))
            for what, key in (("architecture", "general.architecture"), ("title", "general.name")):
                if before.text(key) != after.text(key):
                    changes.append(Change(what, before.text(key) or "none", after.text(key) or "none"))
            lengths = [each.integer("context_length") for each in (before, after)]
            if lengths[0] != lengths[1]:
                changes.append(Change("context", *(str(length or "none") for length in lengths)))
            return tuple(changes)
    except (OwmError, OSError):
        return ()


def to_fetch(checked: Checked) -> int | None:
    """Return how many bytes an update brings, None if its source does not say."""
    plan = checked.plan
    if plan is None or plan.size_bytes is None:
        return None
    return max(0, plan.size_bytes - plan.source.partial_bytes(plan.offer, plan.variant.files, plan.folder))


def share_one_name(checked: Checked) -> bool:
    """Tell whether the new model could not be told from the old one by any name, so that the old one has to go."""
    plan = checked.plan
    return plan is not None and plan.offer.commit == (checked.model.manifest and checked.model.manifest.commit)


def remove_old(model: "StoredModel", store: "Store") -> int:
    """Remove a model that a newer one has taken the place of; return the bytes freed."""
    from owm.store.sources import hub

    return store.remove(model, remove_hub_files=lambda paths: hub.remove_files(store.hub, paths))
