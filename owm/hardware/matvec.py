"""How long the parts of a model's graph take on this machine: products with weights of a type, attention, the rest.

Products are ggml's own, with weights kept as llama.cpp keeps those of a model, from memory and from caches. Each sample
is short, because others compute on the machine too: what the best samples agree on is what it takes undisturbed.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from owm.errors import UsageError
from owm.hardware import probe

if TYPE_CHECKING:
    from owm.native.compute import Operation

SECONDS = 0.05  # of measuring one thing, where the samples agree
MAX_SECONDS = 0.4  # where they do not
AGREEING = 3  # so many samples of a graph
WITHIN = 1.05  # of the best
CPU_SHARE = 0.9  # of the time that the threads could have had

MATRIX_BYTES = 4 << 20
SMALL_BYTES = 96 << 10  # of a matrix that is so small that what a product takes whatever its rows can be seen
MAX_SMALL = 1024  # such matrices, at most
CACHED_BYTES = 8 << 20  # of matrices that caches hold, at most; and a quarter of the last cache
MIN_STREAMED_BYTES, MAX_STREAMED_BYTES = 48 << 20, 512 << 20
STREAMED_TIMES = 3  # as many times as the last caches together
MEMORY_SHARE = 8  # at most one part in so many of the free memory
SHORT, LONG = 512, 4096  # values of a row
PROMPT = 512  # tokens that are read at once
PROMPT_ROWS, PROMPT_LONG = 512, 2048
CELLS = 1024  # of a KV cache
HEADS, KV_HEADS = 8, 2
SMALL_HEAD, LARGE_HEAD = 64, 128
N_NODES = 96

Step = tuple[str, str]  # what is measured: ("product" | "attention", type), or ("rest", "")


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a thing that has rows: so much for each, and so much for each value of it."""

    per_row: float
    per_value: float

    def seconds(self, n_rows: float, n_values: float) -> float:
        """Return what rows of so many values take."""
        return n_rows * (self.per_row + self.per_value * n_values)


@dataclass(frozen=True, slots=True)
class Product:
    """A row of weights of one type, times a column.

    Attributes:
        streamed: for one column, the weights from memory.
        cached: for one column, the weights from caches.
        column: for each of many columns.
        streamed_once, cached_once: seconds of a product whatever its rows: until the threads have begun and the weights
            come at full rate, and until the last thread is done.
        is_packed: llama.cpp keeps such weights in an order of its own, in which products with experts are as fast as
            others. Where it does not, each of their columns is multiplied by itself.
    """

    streamed: Line
    cached: Line
    column: Line
    streamed_once: float = 0.0
    cached_once: float = 0.0
    is_packed: bool = False

    @property
    def expert_column(self) -> Line:
        """For each of many columns, the weights those of an expert. ref: ggml-cpu.c, ggml_compute_forward_mul_mat_id"""
        return self.column if self.is_packed else self.cached


@dataclass(frozen=True, slots=True)
class Attention:
    """A head of a token over a cell of the KV cache: `token` for one that is made, `prompt` for each of many."""

    token: Line
    prompt: Line


@dataclass(frozen=True, slots=True)
class Rest:
    """What is no product with weights.

    Attributes:
        graph: seconds of a graph, whatever is in it.
        node: of a node that computes next to nothing.
        value: for each value of a node, where many tokens are read at once.
        decaying: for each value of a recurrent state that has a decay of its own, for each token.
        state: for each value of another recurrent state, for each token.
    """

    graph: float
    node: float
    value: float
    decaying: float
    state: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured with so many threads.

    Attributes:
        cache_bytes: that the last caches hold together.
        bytes_per_second: of memory, as STREAM's triad counts them.
        rest: None before it is measured.
        products: by type of the weights, as ggml names it (`Q4_K`).
        attention: by type of the KV cache.
        disturbed: when (seconds since the epoch) a step was measured while the machine did much else.
    """

    n_threads: int
    cache_bytes: int
    bytes_per_second: float
    rest: Rest | None = None
    products: Mapping[str, Product] = field(default_factory=dict)
    attention: Mapping[str, Attention] = field(default_factory=dict)
    disturbed: Mapping[Step, float] = field(default_factory=dict)

    def missing(self, types: Iterable[str], cache_types: Iterable[str], *, disturbed_before: float) -> list[Step]:
        """Return what is still to be measured, or was disturbed before some time: the most important first."""
        wanted: list[Step] = [("rest", "")]
        wanted += [("attention", name.upper()) for name in cache_types]
        wanted += [("product", name.upper()) for name in types]
        wanted = list(dict.fromkeys(wanted))
        new = [step for step in wanted if not self._has(step)]
        return new + [step for step in wanted if self._has(step) and self.disturbed.get(step, inf) < disturbed_before]

    def _has(self, step: Step) -> bool:
        what, name = step
        if what == "rest":
            return self.rest is not None
        return name in (self.products if what == "product" else self.attention)


class Measuring:
    """Measurements with one number of threads; `is_settled` turns False at the first that was disturbed throughout."""

    def __init__(self, *, n_threads: int, cache_bytes: int, max_seconds: float = MAX_SECONDS) -> None:
        """Prepare them; `cache_bytes` is what the last caches hold together."""
        self.n_threads = n_threads
        self.is_settled = True
        self._cache_bytes = cache_bytes
        self._max_seconds = max_seconds

    def add(self, rates: Rates, step: Step) -> Rates:
        """Return the rates with one step more.

        Raises:
            UsageError: there is no such type.
            EngineError: ggml cannot compute it, most often for want of memory.
        """
        what, name = step
        self.is_settled = True
        if what == "rest":
            rates = replace(rates, rest=self.rest())
        elif what == "product":
            rates = replace(rates, products={**rates.products, name: self.product(name)})
        else:
            rates = replace(rates, attention={**rates.attention, name: self.attention(name)})
        disturbed = {each: at for each, at in rates.disturbed.items() if each != step}
        return replace(rates, disturbed=disturbed if self.is_settled else {**disturbed, step: time.time()})

    def rest(self) -> Rest:
        """Measure what is no product with weights.

        Raises:
            EngineError: ggml cannot compute it.
        """
        with self._operation() as operation:
            operation.chain(n_values=256, n_columns=1, n_nodes=1)
            graph = self._best(operation)
            operation.chain(n_values=256, n_columns=1, n_nodes=1 + N_NODES)
            node = max(0.0, self._best(operation) - graph) / N_NODES
            operation.chain(n_values=LONG, n_columns=PROMPT, n_nodes=4)
            value = self._best(operation) / 4 / LONG / PROMPT
            operation.scan(n_state=16, head_size=1, n_heads=LONG, n_columns=1, n_layers=8)
            decaying = max(0.0, self._best(operation, n_graphs=8) - graph) / 16 / LONG
            operation.scan(n_state=128, head_size=64, n_heads=32, n_columns=1, n_layers=8)
            state = max(0.0, self._best(operation, n_graphs=8) - graph) / 128 / 64 / 32
        return Rest(graph, node, value, decaying, state)

    def product(self, type_name: str) -> Product:
        """Measure products with weights of a type (`Q4_K`).

        Raises:
            UsageError: there is no such type.
            EngineError: ggml cannot compute it, most often for want of memory.
        """
        from owm.native.compute import TYPES, row_bytes

        name = type_name.lower()
        if name not in TYPES:
            raise UsageError(f"no rate is measured of weights of type {type_name}")
        streamed_bytes = min(max(MIN_STREAMED_BYTES, STREAMED_TIMES * self._cache_bytes), MAX_STREAMED_BYTES)
        streamed_bytes = min(streamed_bytes, max(1 << 20, probe.memory().available // MEMORY_SHARE))
        cached_bytes = min(CACHED_BYTES, max(1 << 20, self._cache_bytes // 4))
        is_packed = False
        with self._operation() as operation:

            def rows(n_values: int, n_bytes: int) -> tuple[int, float]:
                n_out = max(64, min(MATRIX_BYTES, n_bytes) // row_bytes(name, n_values) // 64 * 64)
                n_weights = max(1, round(n_bytes / (n_out * row_bytes(name, n_values))))
                operation.multiply(name, n_out=n_out, n_in=n_values, n_columns=1, n_weights=n_weights, as_loaded=True)
                return n_out, self._best(operation, n_graphs=n_weights)

            def few_rows(n_bytes: int) -> tuple[int, float]:
                wanted = max(SMALL_BYTES, n_bytes // MAX_SMALL)
                n_out = max(64, wanted // row_bytes(name, SHORT) // 64 * 64)
                n_weights = max(1, round(n_bytes / (n_out * row_bytes(name, SHORT))))
                operation.multiply(
                    name, n_out=n_out, n_in=SHORT, n_columns=1, n_weights=n_weights, as_loaded=True, in_one=True
                )
                return n_out, self._best(operation) / n_weights

            def one_column(n_bytes: int) -> tuple[float, Line]:
                """Return what a product takes whatever its rows, and what these take."""
                (n_few, few), (n_many, many) = few_rows(n_bytes), rows(SHORT, n_bytes)
                n_long, long = rows(LONG, n_bytes)
                once = 0.0
                if n_many > n_few and many > few:  # else it was disturbed, or there are no more rows
                    once = max(0.0, few - n_few * (many - few) / (n_many - n_few))
                once = min(once, many / 2, long / 2)
                return once, _line((many - once) / n_many, (long - once) / n_long)

            def column(n_values: int) -> float:
                nonlocal is_packed
                is_packed = operation.multiply(name, n_out=PROMPT_ROWS, n_in=n_values, n_columns=PROMPT, as_loaded=True)
                return self._best(operation) / PROMPT_ROWS / PROMPT

            streamed_once, streamed = one_column(streamed_bytes)
            cached_once, cached = one_column(cached_bytes)
            short, long = column(SHORT), column(PROMPT_LONG)
        # What is slower from caches than from memory, or at many columns than at one, was disturbed.
        at_long = min(cached.seconds(1, LONG), streamed.seconds(1, LONG))
        cached = _line(min(cached.seconds(1, SHORT), streamed.seconds(1, SHORT)), at_long)
        at_once = max(cached.seconds(1, SHORT) / SHORT, at_long / LONG)
        column_line = _line(min(short, at_once * SHORT), min(long, at_once * PROMPT_LONG), long=PROMPT_LONG)
        return Product(streamed, cached, column_line, streamed_once, min(cached_once, streamed_once), is_packed)

    def attention(self, type_name: str) -> Attention:
        """Measure attention over a KV cache of a type (`F16`).

        Raises:
            UsageError: there is no such type.
            EngineError: ggml cannot compute it.
        """
        from owm.native.compute import TYPES

        if type_name.lower() not in TYPES:
            raise UsageError(f"no rate is measured of a KV cache of type {type_name}")
        with self._operation() as operation:

            def cell(head_size: int, n_columns: int) -> float:
                operation.attend(
                    type_name.lower(), head_size=head_size, n_heads=HEADS, n_kv_heads=KV_HEADS, n_columns=n_columns,
                    n_cells=CELLS,
                )  # fmt: skip
                return self._best(operation) / HEADS / CELLS / n_columns

            token, prompt = (
                _line(cell(SMALL_HEAD, n), cell(LARGE_HEAD, n), long=LARGE_HEAD, short=SMALL_HEAD)
                for n in (1, PROMPT // 8)
            )
        return Attention(token, prompt)

    def _operation(self) -> "Operation":
        from owm.native.compute import Operation

        return Operation(n_threads=self.n_threads)

    def _best(self, operation: "Operation", n_graphs: int = 1) -> float:
        """Return the seconds of a run: of each graph the best that agree, while no thread had to wait for a core."""
        for _ in range(n_graphs):  # what is done first takes longer
            operation.run()
        best: list[list[float]] = [[] for _ in range(n_graphs)]
        began, cpu_began, n_turns = time.perf_counter(), time.process_time(), 0
        while True:
            for of_graph in best:
                before = time.perf_counter()
                operation.run()
                of_graph.append(time.perf_counter() - before)
                of_graph.sort()
                del of_graph[AGREEING:]
            n_turns += 1
            elapsed = time.perf_counter() - began
            if elapsed < SECONDS or n_turns < AGREEING:
                continue
            # Threads that wait for each other do so busily: where less time was had, another process had it.
            has_cores = time.process_time() - cpu_began >= CPU_SHARE * self.n_threads * elapsed
            first, last = (sum(of_graph[rank] for of_graph in best) for rank in (0, -1))
            if has_cores and last <= WITHIN * first:
                return sum(of_graph[AGREEING // 2] for of_graph in best) / n_graphs
            if elapsed >= self._max_seconds:
                self.is_settled = False
                return first / n_graphs


def _line(low: float, high: float, *, long: int = LONG, short: int = SHORT) -> Line:
    """Return the line through what two lengths of rows take; where noise would have it fall, one without a constant."""
    per_value = (high - low) / (long - short)
    per_row = low - per_value * short
    if per_row < 0:
        return Line(0.0, high / long)
    if per_value <= 0:
        return Line(0.0, max(low / short, high / long))
    return Line(per_row, per_value)


def record(rates: Rates) -> dict[str, Any]:
    """Return what was measured, as JSON keeps it."""
    return {
        "rest": list(astuple(rates.rest)) if rates.rest else None,
        "products": {
            name: [
                *_flat(each.streamed, each.cached, each.column),
                each.streamed_once,
                each.cached_once,
                int(each.is_packed),
            ]
            for name, each in rates.products.items()
        },
        "attention": {name: _flat(each.token, each.prompt) for name, each in rates.attention.items()},
        "disturbed": [[*step, at] for step, at in rates.disturbed.items()],
    }


def from_record(entry: object, empty: Rates) -> Rates:
    """Return rates with what was kept; nothing of it if it is damaged."""
    if not isinstance(entry, dict):
        return empty
    rest, products, attention, disturbed = (entry.get(key) for key in ("rest", "products", "attention", "disturbed"))
    if not isinstance(products, dict) or not isinstance(attention, dict) or not isinstance(disturbed, list):
        return empty
    flags = [each.pop() if isinstance(each, list) and len(each) == 9 else None for each in products.values()]
    widths = [(rest, 5), *((each, 8) for each in products.values()), *((each, 4) for each in attention.values())]
    if not all(_are_times(numbers, width) for numbers, width in widths) or not all(map(_is_disturbed, disturbed)):
        return empty
    if any(flag not in (0, 1) for flag in flags):
        return empty
    assert isinstance(rest, list)
    return replace(
        empty,
        rest=Rest(*rest),
        products={
            name: _product(each, is_packed=bool(flag))
            for (name, each), flag in zip(products.items(), flags, strict=True)
        },
        attention={name: Attention(*_lines(each)) for name, each in attention.items()},
        disturbed={(what, name): at for what, name, at in disturbed},
    )


def _product(numbers: Sequence[float], *, is_packed: bool) -> Product:
    streamed, cached, column = _lines(numbers[:6])
    streamed_once, cached_once = numbers[6:]
    return Product(streamed, cached, column, streamed_once, cached_once, is_packed)


def _is_disturbed(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 3
        and all(isinstance(text, str) for text in entry[:2])
        and type(entry[2]) in (int, float)
    )


def _flat(*lines: Line) -> list[float]:
    return [number for line in lines for number in (line.per_row, line.per_value)]


def _lines(numbers: Sequence[float]) -> list[Line]:
    return [Line(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _are_times(numbers: object, width: int) -> bool:
    """Tell whether these are so many seconds, of which each pair takes some time."""
    if not isinstance(numbers, list) or len(numbers) != width:
        return False
    return all(type(each) in (int, float) and 0 <= each < 1 for each in numbers) and any(numbers)
