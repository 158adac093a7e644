"""Rules over the tensors of a checkpoint, by name: each takes all of them and returns all of them.

An architecture is a list of such rules. Names stay those of the checkpoint; only at the end are they mapped to the
model file's. Patterns are regular expressions that must match a whole name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from owm.convert import transforms
from owm.convert.hparams import Config
from owm.errors import Damaged
from owm.pipeline.rows import MemoryRows, Rows

MAX_EXPERTS = 1 << 12
Tensors = dict[str, Rows]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named change to the tensors of a checkpoint; `adds` if all it does is add some, which an adapter never has."""

    name: str
    run: Callable[[Tensors, Config], Tensors]
    adds: bool = False


def rename(pattern: str, replacement: str) -> Rule:
    """Give tensors another name; the replacement may name groups (`\\1`)."""
    compiled = re.compile(pattern)

    def run(tensors: Tensors, config: Config) -> Tensors:
        renamed: Tensors = {}
        for name, rows in tensors.items():
            new = match.expand(replacement) if (match := compiled.fullmatch(name)) else name
            if new in renamed:
                raise Damaged(f"the checkpoint has {new} twice")
            renamed[new] = rows
        return renamed

    return Rule(f"rename {pattern}", run)


def drop(pattern: str, *, when: Callable[[Config], bool] = lambda config: True) -> Rule:
    """Leave tensors out."""
    compiled = re.compile(pattern)
    return Rule(
        f"drop {pattern}",
        lambda tensors, config: (
            {name: rows for name, rows in tensors.items() if not compiled.fullmatch(name)} if when(config) else tensors
        ),
    )


def apply(
    pattern: str, change: Callable[[Rows, Config], Rows], *, when: Callable[[Config], bool] = lambda config: True
) -> Rule:
    """Change every tensor whose name matches."""
    compiled = re.compile(pattern)

    def run(tensors: Tensors, config: Config) -> Tensors:
        if not when(config):
            return tensors
        return {name: change(rows, config) if compiled.fullmatch(name) else rows for name, rows in tensors.items()}

    return Rule(f"apply {getattr(change, '__name__', 'change')} to {pattern}", run)


def divide(pattern: str, change: Callable[[Rows, Config], Mapping[str, Rows]]) -> Rule:
    """Make several tensors of each that matches; the keys of what `change` returns are templates (`\\1.q_proj`)."""
    compiled = re.compile(pattern)

    def run(tensors: Tensors, config: Config) -> Tensors:
        made: Tensors = {}
        for name, rows in tensors.items():
            if match := compiled.fullmatch(name):
                made |= {match.expand(template): piece for template, piece in change(rows, config).items()}
            else:
                made[name] = rows
        return made

    return Rule(f"divide {pattern}", run)


def stack(pattern: str, target: str, *, count: Callable[[Config], int] | None = None) -> Rule:
    """Stack the experts of each layer: `(?P<expert>\\d+)` in the pattern counts them, `target` is a template."""
    return _gather("stack", pattern, target, transforms.stack, count)


def join(pattern: str, target: str, *, count: Callable[[Config], int] | None = None) -> Rule:
    """Put tensors one after the other in the order of `(?P<expert>\\d+)`."""
    return _gather("join", pattern, target, transforms.join, count)


def _gather(
    verb: str,
    pattern: str,
    target: str,
    make: Callable[[list[Rows]], Rows],
    count: Callable[[Config], int] | None,
) -> Rule:
    compiled = re.compile(pattern)

    def run(tensors: Tensors, config: Config) -> Tensors:
        groups: dict[str, dict[int, Rows]] = {}
        made: Tensors = {}
        for name, rows in tensors.items():
            if match := compiled.fullmatch(name):
                new = match.expand(target)
                made.setdefault(new, rows)  # keeps the place; replaced below
                groups.setdefault(new, {})[int(match["expert"])] = rows
            else:
                made[name] = rows
        for new, members in groups.items():
            expected = count(config) if count is not None else len(members)
            missing = [index for index in range(min(expected, MAX_EXPERTS)) if index not in members]
            if missing or len(members) != expected:
                raise Damaged(
                    f"of {new} there are {len(members)} parts, {expected} should be: {missing[:5]} are missing"
                )
            made[new] = make([members[index] for index in range(expected)])
        return made

    return Rule(f"{verb} {pattern}", run)


def combine(pattern: str, target: str, change: Callable[[Mapping[str, Rows], Config], Rows]) -> Rule:
    """Make one tensor of several that differ in the group `(?P<part>…)`, handed over by that part's name."""
    compiled = re.compile(pattern)

    def run(tensors: Tensors, config: Config) -> Tensors:
        groups: dict[str, dict[str, Rows]] = {}
        made: Tensors = {}
        for name, rows in tensors.items():
            if match := compiled.fullmatch(name):
                new = match.expand(target)
                made.setdefault(new, rows)
                groups.setdefault(new, {})[match["part"]] = rows
            else:
                made[name] = rows
        return made | {new: change(parts, config) for new, parts in groups.items()}

    return Rule(f"combine {pattern}", run)


def extra(name: str, make: Callable[[Config], np.ndarray[Any, np.dtype[Any]] | None]) -> Rule:
    """Add a tensor that is computed from the config; none if `make` returns None."""

    def run(tensors: Tensors, config: Config) -> Tensors:
        array = make(config)
        return tensors if array is None else {name: MemoryRows(array), **tensors}

    return Rule(f"extra {name}", run, adds=True)


def untie(source: str, target: str) -> Rule:
    """Write tied embeddings a second time as the output's, for architectures of which llama.cpp wants both."""

    def run(tensors: Tensors, config: Config) -> Tensors:
        is_tied = config.flag("tie_word_embeddings", default=False)
        return {target: tensors[source], **tensors} if is_tied and source in tensors else tensors

    return Rule(f"untie {target}", run, adds=True)
