"""Probabilities of given answers: the prompt is read once, and all the answers as one tree of tokens.

An answer's probability is that of its tokens and of the end of the turn after them, so an answer that another one
begins with is right too. Answers are tokenized as text that follows the prompt; other ways to cut the same text into
tokens are not counted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from owm.engine.generate import decoded
from owm.engine.logprobs import Logits, log_normalizer
from owm.engine.model import Model
from owm.engine.tuning import N_UBATCH
from owm.errors import EngineError, UsageError
from owm.native.llama import Context

MAX_BRANCHES = 64  # sequences of one round: llama.cpp reserves a row of logits for each
MAX_ROWS = 128  # of logits in memory
# Where llama.cpp reads fewer tokens at once, its flash attention on a processor sums in 16 bits: after a prompt of
# 1,400 tokens, probabilities of a model in f32 were off by 0.05.
MIN_TOKENS = 64


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


class _Tree:
    """Answers that are read together: `parts` are its nodes as they are read, those nearer to the root first."""

    def __init__(self, paths: Sequence[Sequence[int]], *, is_tree: bool) -> None:
        self.root = _Node(-1, -1)
        self.n_leaves = len(paths)
        self._routes = []
        for leaf, path in enumerate(paths, 1):
            route = [self.root]
            for depth, token in enumerate(path):
                node = route[-1].children.setdefault((token, 0 if is_tree else leaf), _Node(token, depth))
                node.leaves.append(leaf)
                route.append(node)
            self._routes.append(route)
        nodes = list(_by_depth(self.root))
        n_parts = max(1, math.ceil(len(nodes) / MAX_ROWS))
        size = math.ceil(len(nodes) / n_parts)
        self.parts = [nodes[i * size : (i + 1) * size] for i in range(n_parts)]

    def logprobs(self) -> list[float]:
        """Return the log probability of each answer, its end included."""
        return [sum(node.logprob for node in route[1:]) + route[-1].end_logprob for route in self._routes]


def _by_depth(root: _Node) -> Iterator[_Node]:
    level = list(root.children.values())
    while level:
        yield from level
        level = [child for node in level for child in node.children.values()]


def score_choices(
    model: Model,
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
    model.choose_context(len(prompt), max_tokens=n_deepest, asked=n_ctx)
    # A state cannot be shared by a part of the sequences that had it in common: no tree then, but one branch each.
    is_tree = not model.native.is_recurrent
    trees = [_Tree(paths[i : i + MAX_BRANCHES], is_tree=is_tree) for i in range(0, len(paths), MAX_BRANCHES)]
    n_fewest = min(len(tree.parts[0]) for tree in trees)
    n_again = min(len(prompt), max(1, MIN_TOKENS - n_fewest)) if is_tree else 0
    if 0 < (n_few := (len(prompt) - n_again) % N_UBATCH) < MIN_TOKENS and is_tree:
        n_again += n_few
    made = model.scheduler(
        len(prompt) + n_deepest,
        n_sequences=1 + max(tree.n_leaves for tree in trees),
        n_shared=len(prompt),
        n_threads=n_threads,
        is_exact=n_again + n_fewest < MIN_TOKENS,
    )
    with made as scheduler, scheduler.borrow() as context:
        decoded(lambda: _read(context, prompt, n_again, trees), context.cancel)
    return _scores(choices, [logprob for tree in trees for logprob in tree.logprobs()], paths)


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


def _read(context: Context, prompt: Sequence[int], n_again: int, trees: Sequence[_Tree]) -> None:
    """Read a prompt into the first sequence of a context, and trees after it into the others, one after the other.

    Args:
        n_again: tokens at the end of the prompt that are read with each tree.
    """
    batch, ends = context.batch, list(context.model.ends)
    n_before = len(prompt) - n_again
    for begin in range(0, n_before, batch.capacity):
        batch.clear()
        for position in range(begin, min(n_before, begin + batch.capacity)):
            last = batch.add(prompt[position], position, 0, wants_logits=position == len(prompt) - 1)
        _decode(context)
    if n_again == 0:
        for tree in trees:
            _observe(tree.root, context.logits(last), ends)
    for tree in trees:
        leaves = list(range(1, tree.n_leaves + 1))
        for leaf in leaves:
            context.forget(leaf)
            context.share(0, leaf)
        for part, nodes in enumerate(tree.parts):
            batch.clear()
            asked = []
            for position in range(n_before, len(prompt)) if part == 0 else ():
                last = batch.add_shared(prompt[position], position, leaves, wants_logits=position == len(prompt) - 1)
                if position == len(prompt) - 1:
                    asked.append((tree.root, last))
            for node in nodes:
                index = batch.add_shared(node.token, len(prompt) + node.depth, node.leaves, wants_logits=True)
                asked.append((node, index))
            _decode(context)
            for node, index in asked:
                _observe(node, context.logits(index), ends)


def _decode(context: Context) -> None:
    if status := context.decode():
        raise EngineError("scoring was cancelled" if status == 2 else "the KV cache has no room for the choices")


def _observe(node: _Node, logits: Logits, ends: Sequence[int]) -> None:
    """Take what follows a node out of the logits after it; a model without any end ends nothing."""
    normalizer = log_normalizer(logits)
    for child in node.children.values():
        child.logprob = float(logits[child.token]) - normalizer
    node.end_logprob = log_normalizer(logits[ends]) - normalizer if ends else 0.0
