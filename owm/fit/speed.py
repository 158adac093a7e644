"""How fast a model would be on this machine, from its headers and what was measured of the machine once.

A token takes the sum of its products with weights (each at the rate of its type, from memory or from caches), of
attention over what was read before, of recurrent states, and of what each node of the graph costs by itself. There is
nothing in it that was fitted to models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from owm.fit.work import Heads, Matrix, Work, work_of
from owm.formats.gguf import TENSOR_TYPES, Header
from owm.hardware.matvec import PROMPT, Product, Rates, Rest

Limit = Literal["memory", "compute", "attention", "overhead"]

CACHE_TYPE = "F16"
MIN_SHARE = 0.02  # of the bytes; types of less are taken to be as fast as the others
# A weight that is used once a token is still in the caches if so much of them holds all weights, and is not if all are
# so many times as large: in between some are.
ALL_CACHED, NONE_CACHED = 0.75, 2.0
N_MADE = 64  # tokens that an answer has on the average, of some length
MEMORY_BOUND = 0.6  # of what memory can do

_TYPES = {name: (number, n_values, n_bytes) for number, (name, n_values, n_bytes) in TENSOR_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Speed:
    """What a model would do, in tokens per second.

    Attributes:
        tg_per_second: tokens that are made, of all answers together where several are made side by side.
        pp_per_second: tokens of a prompt that are read, 512 at once.
        limited_by: what takes most of the time of making a token.
        is_uncertain: the machine did much else while it was measured for this.
    """

    tg_per_second: float
    pp_per_second: float
    limited_by: Limit
    is_uncertain: bool = False


def type_names(headers: Sequence[Header]) -> tuple[str, ...]:
    """Return the types that have to be measured to predict this model, the most used first (`Q4_K`)."""
    return tuple(name for name, share in work_of(headers).shares().items() if share >= MIN_SHARE)


def predict(
    headers: Sequence[Header],
    rates: Rates,
    *,
    n_ctx_filled: int = 0,
    n_parallel: int = 1,
    type_k: str = CACHE_TYPE,
    type_v: str = CACHE_TYPE,
    size_share: float = 1.0,
) -> Speed | None:
    """Return how fast the model would be on the CPU; None if a type of it is not among the rates.

    Args:
        headers: of all files of the model; see `owm.fit.memory.retyped` for one whose header is not at hand.
        rates: what `owm.hardware.rates.speeds(machine, type_names(headers))` gives, where that is not None.
        n_ctx_filled: tokens that each answer has in its context already.
        n_parallel: answers that are made side by side.
        type_k, type_v: of the KV cache; one that is not among the rates is taken to be as fast as one that is.
        size_share: bytes that the weights really have for each byte that the headers say, where types are guessed.
    """
    work = work_of(headers)
    shares = work.shares()
    known = [name for name in shares if name in rates.products]
    if rates.rest is None or not rates.attention:
        return None
    if not known or any(share >= MIN_SHARE and name not in rates.products for name, share in shares.items()):
        return None
    clock = _Clock(work, rates, rates.rest, size_share, known[0])
    caches = [name for name in (type_k.upper(), type_v.upper()) if name in rates.attention] or list(rates.attention)[:1]
    made = clock.made(max(1, n_parallel), n_ctx_filled + N_MADE, caches)
    read = clock.read(n_ctx_filled + PROMPT // 2, caches)
    used = {("rest", ""), *(("product", name) for name in known), *(("attention", name) for name in caches)}
    return Speed(
        max(1, n_parallel) / made.seconds, PROMPT / read.seconds, made.limit(rates), bool(used & rates.disturbed.keys())
    )


@dataclass(frozen=True, slots=True)
class _Time:
    """What the parts of a step take, in seconds; `streamed_bytes` come from memory."""

    products: float
    attention: float
    overhead: float
    streamed_bytes: float

    @property
    def seconds(self) -> float:
        return self.products + self.attention + self.overhead

    def limit(self, rates: Rates) -> Limit:
        largest = max(self.products, self.attention, self.overhead)
        if largest == self.attention:
            return "attention"
        if largest == self.overhead:
            return "overhead"
        is_bound = self.streamed_bytes >= MEMORY_BOUND * rates.bytes_per_second * self.products
        return "memory" if is_bound else "compute"


class _Clock:
    """Times the steps of a model."""

    def __init__(self, work: Work, rates: Rates, rest: Rest, size_share: float, usual_type: str) -> None:
        self._work = work
        self._rates = rates
        self._rest = rest
        self._size_share = size_share
        self._usual_type = usual_type
        self._n_bytes = work.n_bytes * size_share
        cache = max(1, rates.cache_bytes)
        self._streamed = min(1.0, max(0.0, (self._n_bytes / cache - ALL_CACHED) / (NONE_CACHED - ALL_CACHED)))

    def made(self, n_columns: int, n_cells: float, cache_types: Sequence[str]) -> _Time:
        """Return what a token of each of `n_columns` answers takes, each after so many cells."""
        work = self._work
        parts = [self._step(matrix, n_columns) for matrix in work.matrices]
        attention = sum(self._attention(heads, n_cells, cache_types) for heads in work.layers) * n_columns
        return _Time(
            sum(seconds for seconds, _ in parts),
            attention + self._states() * n_columns,
            self._nodes(n_columns),
            sum(n_bytes for _, n_bytes in parts) * self._streamed,
        )

    def read(self, n_cells: float, cache_types: Sequence[str]) -> _Time:
        """Return what reading a prompt's tokens at once takes, each after so many cells on the average."""
        work, attention = self._work, 0.0
        for heads in work.layers:
            cells = min(n_cells, heads.window or n_cells)
            lines = [self._rates.attention[name].prompt for name in cache_types]
            attention += heads.n_heads * sum(line.seconds(cells, heads.size) for line in lines) / max(1, len(lines))
        products = sum(
            self._step(matrix, 1)[0] if matrix.is_output else self._prompt(matrix) for matrix in work.matrices
        )
        return _Time(products, (attention + self._states()) * PROMPT, self._nodes(PROMPT), 0.0)

    def _step(self, matrix: Matrix, n_columns: int) -> tuple[float, float]:
        """Return the seconds and the bytes of weights of a product with few columns."""
        share, n_own = self._touched(matrix, n_columns)
        n_rows = matrix.n_rows * share
        rate, factor = self._rate(matrix)
        cached = rate.cached.seconds(n_rows, matrix.n_values) * factor + rate.cached_once
        streamed = max(cached, rate.streamed.seconds(n_rows, matrix.n_values) * factor + rate.streamed_once)
        column = rate.expert_column if matrix.n_experts else rate.column
        further = max(0.0, n_own - 1) * column.seconds(n_rows, matrix.n_values)
        from_cache = cached + further
        from_memory = max(streamed, from_cache)
        seconds = from_cache + (from_memory - from_cache) * self._streamed
        return seconds, matrix.n_bytes * share * self._size_share

    def _prompt(self, matrix: Matrix) -> float:
        """Return the seconds of a product with all columns of a prompt."""
        rate, _ = self._rate(matrix)
        if not matrix.n_experts:
            return rate.column.seconds(matrix.n_rows, matrix.n_values) * PROMPT + rate.cached_once
        return self._step(matrix, PROMPT)[0]

    def _touched(self, matrix: Matrix, n_columns: int) -> tuple[float, float]:
        """Return the share of the rows that so many columns are multiplied with, and the columns that each row has."""
        if not matrix.n_experts:
            return 1.0, n_columns
        used = min(1.0, self._work.n_used / matrix.n_experts)
        share = 1 - (1 - used) ** n_columns
        return share, n_columns * used / share

    def _rate(self, matrix: Matrix) -> tuple[Product, float]:
        """Return the rate of a matrix's type, and what to multiply it with; if it was not measured, another's."""
        products = self._rates.products
        if matrix.type_name in products:
            return products[matrix.type_name], self._size_share
        _, n_values, n_bytes = _TYPES[self._usual_type]
        usual_bytes = matrix.n_rows * matrix.n_values / n_values * n_bytes
        return products[self._usual_type], matrix.n_bytes / usual_bytes

    def _attention(self, heads: Heads, n_cells: float, cache_types: Sequence[str]) -> float:
        """Return the seconds of a token's attention in a layer: to compute it or to read it, whichever is more."""
        cells = min(n_cells, heads.window or n_cells)
        seconds = n_bytes = 0.0
        for name in cache_types:
            seconds += self._rates.attention[name].token.seconds(heads.n_heads * cells, heads.size) / len(cache_types)
            _, n_values, block_bytes = _TYPES[name]
            n_bytes += 2 * cells * heads.n_kv_heads * heads.size / n_values * block_bytes / len(cache_types)
        return max(seconds, n_bytes / self._rates.bytes_per_second)

    def _states(self) -> float:
        """Return the seconds of one token in all recurrent states."""
        rest = self._rest
        return self._work.n_decaying * rest.decaying + self._work.n_state * rest.state

    def _nodes(self, n_columns: int) -> float:
        """Return what the nodes that are no products take, and the graph. One column is for one thread."""
        rest, work, n_threads = self._rest, self._work, self._rates.n_threads
        values = work.n_node_values * rest.value * n_columns * n_threads / min(n_columns, n_threads)
        return rest.graph + work.n_nodes * rest.node + values
