"""Probabilities of given answers: the prompt is read once, and all the answers as one tree of tokens.

An answer's probability is that of its tokens and of the end of the turn after them, so an answer that another one
begins with is right too. Answers are tokenized as text that follows the prompt; other ways to cut the same text into
tokens are not counted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from owm.engine.generate import decoded
from owm.engine.logprobs import Logits, log_normalizer
from owm.errors import EngineError, PromptTooLong, UsageError
from owm.native.llama import Context

if TYPE_CHECKING:
    from owm.engine.model import Model

MAX_BRANCHES = 64  # sequences of one round: llama.cpp reserves a row of logits for each
MAX_ROWS = 128  # of logits in memory


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """A given answer: its probability among all of them, and the logarithm of the one that the model gives it."""

    text: str
    probability: float
    logprob: float
    n_tokens: int


@dataclass(slots=True)
class _Node:
    """A token of one or more answers; `leaves` are the sequences that it is in."""

    token: int
    depth: int
    logprob: float = -math.inf  # of the token, after those above it
    end_logprob: float = -math.inf  # of the end of the turn after it
    leaves: list[int] = field(default_factory=list)
    children: "dict[tuple[int, int], _Node]" = field(default_factory=dict)


def score_choices(
    model: "Model",
    prompt: Sequence[int],
    choices: Sequence[str],
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
) -> list[ChoiceScore]:
    """Score answers to a prompt, in the order given; the probabilities sum to 1. Ctrl-C cancels it.

    Args:
        n_ctx: tokens that the context may have at most (`--ctx-size`).

    Raises:
        UsageError: there is no choice, or one is there twice.
        PromptTooLong, NotEnoughMemory: prompt and choices do not fit.
        EngineError: llama.cpp failed.
    """
    if not choices or len(set(choices)) < len(choices):
        raise UsageError("--choice needs different texts" if choices else "--choice needs a text")
    paths = [model.native.continuation(choice) for choice in choices]
    n_deepest = max(1, *map(len, paths))
    size = model.choose_context(len(prompt), max_tokens=n_deepest, asked=n_ctx)
    if size.n_ctx < len(prompt) + n_deepest:
        raise PromptTooLong(
            f"the prompt has {len(prompt)} tokens and a choice {n_deepest}, the context holds {size.n_ctx}",
            n_prompt=len(prompt),
            n_ctx=size.n_ctx,
            hint="nothing was cut; shorten the prompt",
        )
    n_sequences = 1 + min(len(paths), MAX_BRANCHES)
    with (
        model.scheduler(
            len(prompt) + n_deepest, n_sequences=n_sequences, n_shared=len(prompt), n_threads=n_threads
        ) as scheduler,
        scheduler.borrow() as context,
    ):
        logprobs = decoded(lambda: _Reader(context).score(prompt, paths), context.cancel)
    return _scores(choices, logprobs, paths)


def _scores(choices: Sequence[str], logprobs: Sequence[float], paths: Sequence[Sequence[int]]) -> list[ChoiceScore]:
    highest = max(logprobs)
    if not math.isfinite(highest):
        raise EngineError("the model gives no probability to any of the choices")
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    total = math.fsum(weights)
    return [
        ChoiceScore(choice, weight / total, logprob, len(path))
        for choice, weight, logprob, path in zip(choices, weights, logprobs, paths, strict=True)
    ]


class _Reader:
    """Reads a prompt into the first sequence of a context, and answers to it into the others, a round at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ends = list(context.model.ends)

    def score(self, prompt: Sequence[int], paths: Sequence[Sequence[int]]) -> list[float]:
        """Return the log probability of each path of tokens and of the end after it."""
        n_branches = self._context.n_sequences - 1
        rounds = [paths[begin : begin + n_branches] for begin in range(0, len(paths), n_branches)]
        trees = [self._tree(round_paths) for round_paths in rounds]
        last = self._read_prompt(prompt)
        for root, _ in trees:
            self._observe(root, last)
        scores: list[float] = []
        for root, routes in trees:
            self._read_tree(root, len(prompt))
            scores += [sum(node.logprob for node in route[1:]) + route[-1].end_logprob for route in routes]
        return scores

    def _tree(self, paths: Sequence[Sequence[int]]) -> tuple[_Node, list[list[_Node]]]:
        """Return the tree of some paths, and each path as nodes from the root on."""
        root = _Node(-1, -1)
        routes = []
        for leaf, path in enumerate(paths, 1):
            route = [root]
            # A state cannot be shared by a part of the sequences that had it in common: no tree, one branch each.
            branch = leaf if self._context.model.is_recurrent else 0
            for depth, token in enumerate(path):
                node = route[-1].children.setdefault((token, branch), _Node(token, depth))
                node.leaves.append(leaf)
                route.append(node)
            routes.append(route)
        return root, routes

    def _read_prompt(self, prompt: Sequence[int]) -> Logits:
        batch = self._context.batch
        for begin in range(0, len(prompt), batch.capacity):
            batch.clear()
            for position, token in enumerate(prompt[begin : begin + batch.capacity], begin):
                index = batch.add(token, position, 0, wants_logits=position == len(prompt) - 1)
            self._decode()
        return self._context.logits(index)

    def _read_tree(self, root: _Node, n_past: int) -> None:
        batch = self._context.batch
        for leaf in range(1, self._context.n_sequences):
            self._context.forget(leaf)
            self._context.share(0, leaf)
        nodes = list(_by_depth(root))
        n_rows = min(MAX_ROWS, batch.capacity)
        for begin in range(0, len(nodes), n_rows):
            part = nodes[begin : begin + n_rows]
            batch.clear()
            for node in part:
                batch.add_shared(node.token, n_past + node.depth, node.leaves, wants_logits=True)
            self._decode()
            for index, node in enumerate(part):
                self._observe(node, self._context.logits(index))

    def _decode(self) -> None:
        if status := self._context.decode():
            raise EngineError("scoring was cancelled" if status == 2 else "the KV cache has no room for the choices")

    def _observe(self, node: _Node, logits: Logits) -> None:
        """Take what follows a node out of the logits after it."""
        normalizer = log_normalizer(logits)
        for child in node.children.values():
            child.logprob = float(logits[child.token]) - normalizer
        if self._ends:
            node.end_logprob = log_normalizer(logits[self._ends]) - normalizer
        else:
            node.end_logprob = 0.0


def _by_depth(root: _Node) -> Iterator[_Node]:
    """Yield the nodes below a root, those nearer to it first."""
    level = list(root.children.values())
    while level:
        yield from level
        level = [child for node in level for child in node.children.values()]
