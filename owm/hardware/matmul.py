"""How fast this machine multiplies matrices of weights of some type, as prompts are read: FLOP per second."""

import time

from owm.errors import UsageError

SECONDS = 0.3  # of measuring
MIN_RUNS = 3
N_OUT, N_IN, N_COLUMNS = 4096, 2048, 512  # a layer of a model of some size, and one `n_ubatch` of tokens


def measure(type_name: str, *, n_threads: int, seconds: float = SECONDS) -> float:
    """Return the floating-point operations per second of the best run.

    Args:
        type_name: of the weights, as `owm.native.compute.TYPES` has them.

    Raises:
        UsageError: there is no such type.
        EngineError: ggml cannot compute it.
    """
    from owm.native.compute import TYPES, Operation

    if type_name not in TYPES:
        raise UsageError(f"no rate is measured of weights of type {type_name}")
    with Operation(n_threads=n_threads) as operation:
        operation.multiply(type_name, n_out=N_OUT, n_in=N_IN, n_columns=N_COLUMNS)
        best, until, n_runs = float("inf"), time.perf_counter() + seconds, 0
        while n_runs < MIN_RUNS or time.perf_counter() < until:
            began = time.perf_counter()
            operation.run()
            best = min(best, time.perf_counter() - began)
            n_runs += 1
    return 2.0 * N_OUT * N_IN * N_COLUMNS / best
