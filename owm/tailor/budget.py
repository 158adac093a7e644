"""The best assignment of types under a number of bytes: one option for each tensor, least loss in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

N_STEPS = 1 << 16  # into which the bytes to spend are cut


@dataclass(frozen=True, slots=True)
class Option:
    """A tensor as `type_name`: the bytes it takes in the file, padding included, and the loss to expect."""

    type_name: str
    n_bytes: int
    loss: float


def smallest_bytes(options: Mapping[str, Sequence[Option]]) -> int:
    """Return the bytes that all tensors take together at least."""
    return sum(min(option.n_bytes for option in choices) for choices in options.values())


def assign(options: Mapping[str, Sequence[Option]], max_bytes: int) -> dict[str, Option]:
    """Choose an option for each tensor, so that the sum of losses is least and all take at most `max_bytes`.

    A multiple-choice knapsack by dynamic programming over bytes in steps, rounded up so that nothing goes over; what
    the rounding left is then spent on the single changes that gain most.
    ref: Kellerer, Pferschy, Pisinger, Knapsack Problems, chapter 11

    Raises:
        ValueError: even the smallest options take more.
    """
    spare = max_bytes - smallest_bytes(options)
    if spare < 0:
        raise ValueError(f"{max_bytes} bytes are {-spare} too few")
    kept = {name: _useful(choices) for name, choices in options.items()}
    most = sum(choices[-1].n_bytes - choices[0].n_bytes for choices in kept.values())
    if spare >= most:
        return {name: choices[-1] for name, choices in kept.items()}
    step = max(1, -(-spare // N_STEPS))
    chosen = _solve(kept, step, spare // step)
    fill(kept, chosen, max_bytes - sum(option.n_bytes for option in chosen.values()))
    return chosen


def _useful(choices: Sequence[Option]) -> list[Option]:
    """Return the options by size that lose less than every smaller one."""
    kept: list[Option] = []
    for option in sorted(choices, key=lambda option: (option.n_bytes, option.loss)):
        if not kept or option.loss < kept[-1].loss:
            kept.append(option)
    return kept


def _solve(options: Mapping[str, Sequence[Option]], step: int, n_steps: int) -> dict[str, Option]:
    # least[s] is the least loss of the tensors so far with at most s steps above their smallest options.
    least = np.zeros(n_steps + 1)
    picks = []
    for choices in options.values():
        found = least + choices[0].loss
        pick = np.zeros(n_steps + 1, np.uint8)
        for number, option in enumerate(choices[1:], 1):
            cost = -(-(option.n_bytes - choices[0].n_bytes) // step)
            if cost > n_steps:
                break
            loss = least[: n_steps + 1 - cost] + option.loss
            is_less = loss < found[cost:]
            found[cost:][is_less] = loss[is_less]
            pick[cost:][is_less] = number
        least = found
        picks.append(pick)
    chosen, left = {}, n_steps
    for (name, choices), pick in zip(reversed(list(options.items())), reversed(picks), strict=True):
        option = choices[pick[left]]
        left -= -(-(option.n_bytes - choices[0].n_bytes) // step)
        chosen[name] = option
    return {name: chosen[name] for name in options}


def fill(options: Mapping[str, Sequence[Option]], chosen: dict[str, Option], spare: int) -> None:
    """Spend spare bytes on an assignment: each time on the one larger option that lowers the loss most."""
    while True:
        gains = [
            (chosen[name].loss - option.loss, name, option)
            for name, choices in options.items()
            for option in choices
            if 0 < option.n_bytes - chosen[name].n_bytes <= spare and option.loss < chosen[name].loss
        ]
        if not gains:
            return
        _, name, option = max(gains, key=lambda gain: gain[:2])
        spare -= option.n_bytes - chosen[name].n_bytes
        chosen[name] = option
