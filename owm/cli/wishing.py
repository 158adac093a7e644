"""What the flags and settings wish of an answer, for every command that answers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from owm.cli.asking import text_of

if TYPE_CHECKING:
    from owm.engine.constrain import Constraint
    from owm.engine.overflow import Mode
    from owm.engine.sampling import Sampling
    from owm.engine.template import Thinking
    from owm.engine.wishes import Wishes


def make_wishes(
    value: Mapping[str, Any],
    sampling: "Sampling",
    *,
    stop: Sequence[str] | None,
    constraint: "Constraint | None",
    answer_prefix: str | None,
    logprobs: int | None,
    think_budget: int | None,
    is_effort_asked: bool,
    raw: bool,
    overflow: "Mode" = "error",
) -> "Wishes":
    """Put together what is wished of an answer.

    Args:
        value: of each setting, by name.

    Raises:
        UsageError: wishes contradict each other, or are no text.
    """
    from owm.engine.wishes import Wishes
    from owm.library.configuring import tuning_of

    return Wishes(
        sampling=sampling,
        max_tokens=value["max_tokens"],
        n_ctx=value["ctx_size"],
        n_threads=value["threads"],
        tuning=tuning_of(value),
        stops=tuple(text_of(text, "--stop") for text in stop or ()),
        constraint=constraint,
        answer_prefix=text_of(answer_prefix or "", "--answer-prefix"),
        n_logprobs=logprobs or 0,
        thinking=_thinking(value["think"], value["effort"], is_effort_asked=is_effort_asked),
        think_budget=think_budget,
        overflow=overflow,
        is_raw=raw,
    )


def _thinking(think: str | None, effort: Any, *, is_effort_asked: bool) -> "Thinking":
    """Return what is wished of a thought: to show it is to want one."""
    from owm.engine.template import Thinking

    if think == "off":
        return Thinking("off", effort if is_effort_asked else None)
    return Thinking("on" if think in ("show", "only") else "auto", effort)
