"""One result: llama-bench's fields under its names and in its order, and after them what owm knows besides."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from owm.bench.cost import Cost
from owm.bench.rounds import Measured
from owm.errors import UsageError

VERSION = 1
LEAST_RATE, MOST_RATE = 1e-6, 1e12  # tokens per second that something can have
MOST_NUMBER = 1e300


@dataclass(frozen=True, slots=True)
class Build:
    """What computed: llama.cpp's sources and their backends, and owm."""

    commit: str
    cpu_info: str
    gpu_info: str
    backends: str
    owm_version: str
    library: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine can do at most, as measured; None where it was not.

    Attributes:
        flops: of products of matrices with weights of a type, by its name in upper case.
    """

    bytes_per_second: float | None = None
    flops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A case's result.

    Up to `samples_ts` it is what llama-bench prints: `avg_ts` is the mean of the samples' rates, and deviations are
    those of a sample. Settings that owm does not have are those that it leaves at llama.cpp's defaults.

    Attributes:
        test: the case in words, `tg128 @ d4096`.
        prompt_kind: `random`, or `text` for a real prompt.
        quick_ts: the rate in its quickest moments, which other work on the machine does not lower: of the quickest
            tenth of the steps where it is made of steps, else of the best sample; 0 where it is not known.
        ttft_seconds: median time to the first token, where a prompt is read.
        load_seconds_warm, load_seconds_cold: from the file to one token read, with the file in memory or not.
        gbps: weights' bytes (of experts, those in use) times steps per second, in 10^9.
        bandwidth_share: of the machine's measured memory bandwidth.
        flops: operations of products with weights in a prompt, per second.
        flops_share: of the machine's measured rate of such products.
        quality_reference: the model that `kld` (mean divergence in nats a token, known to `kld_margin`) and
            `top1_agreement` are measured against, on `owm.quality`'s text; empty where there was none.
        is_partial: the run that this is of was interrupted: there may be fewer samples, and fewer results.
        settings: where each setting came from, by name.
        machine: as `owm.hardware.machine.Machine.record` says it.
    """

    build_commit: str
    build_number: int
    cpu_info: str
    gpu_info: str
    backends: str
    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    cpu_mask: str
    cpu_strict: bool
    poll: int
    type_k: str
    type_v: str
    n_gpu_layers: int
    n_cpu_moe: int
    split_mode: str
    main_gpu: int
    no_kv_offload: bool
    flash_attn: int
    devices: str
    tensor_split: str
    tensor_buft_overrides: str
    load_mode: str
    lazy_mode: str
    embeddings: bool
    no_op_offload: int
    no_host: bool
    repack: bool
    fit_target: int
    fit_min_ctx: int
    n_prompt: int
    n_gen: int
    n_depth: int
    test_time: str
    avg_ns: int
    stddev_ns: int
    avg_ts: float
    stddev_ts: float
    samples_ns: tuple[int, ...]
    samples_ts: tuple[float, ...]
    test: str = ""
    model: str = ""
    n_parallel: int = 1
    prompt_kind: str = "random"
    quick_ts: float = 0.0
    ttft_seconds: float | None = None
    load_seconds_warm: float | None = None
    load_seconds_cold: float | None = None
    peak_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gbps: float | None = None
    bandwidth_share: float | None = None
    flops: float | None = None
    flops_share: float | None = None
    quality_reference: str = ""
    kld: float | None = None
    kld_margin: float | None = None
    perplexity: float | None = None
    top1_agreement: float | None = None
    is_partial: bool = False
    owm_version: str = ""
    library: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    version: int = VERSION

    @property
    def is_llama_bench(self) -> bool:
        """llama-bench would have measured the same."""
        return self.n_parallel == 1 and self.prompt_kind == "random"

    def members(self) -> dict[str, Any]:
        """Return all of it as JSON says it."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for name, value in found.items()
        }

    @classmethod
    def of_members(cls, members: Mapping[str, Any]) -> "Record":
        """Make a record of what `members` gave, or of what llama-bench printed; other names are left out.

        Older ones of llama-bench have not all of its fields: what tells neither the case nor its rates may be missing.

        Raises:
            UsageError: something is missing, or of another kind.
        """
        values: dict[str, Any] = {}
        for each in fields(cls):
            if each.name not in members:
                continue
            value = members[each.name]
            if each.name in _ONCE_SWITCHES and isinstance(value, bool):
                value = int(value)
            if each.name in ("samples_ns", "samples_ts"):
                if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value):
                    raise UsageError(f"{each.name} is no list of numbers")
                value = tuple(value)
            elif not _is_kind(str(each.type), value):
                raise UsageError(f"{each.name} cannot be {value!r}")
            values[each.name] = value
        missing = [name for name in NEEDED_FIELDS if name not in values]
        if missing:
            raise UsageError(f"{', '.join(missing[:3])} {'is' if len(missing) == 1 else 'are'} missing")
        rates = values["samples_ts"]
        if not rates or not all(LEAST_RATE < rate < MOST_RATE for rate in (*rates, values.get("quick_ts") or rates[0])):
            raise UsageError("there is no rate")
        found = cls(**_UNKNOWN | values)
        return found if found.test else replace(found, test=test_name(found))


# In llama-bench's order; its CSV and SQL have all but the samples. ref: llama-bench.cpp, test::get_fields
LLAMA_BENCH_FIELDS = tuple(each.name for each in fields(Record))[
    : [each.name for each in fields(Record)].index("samples_ts") + 1
]
NEEDED_FIELDS = ("model_filename", "model_size", "model_n_params", "n_prompt", "n_gen", "test_time", "samples_ts")
# What stands for a field that an older llama-bench did not have.
_UNKNOWN: dict[str, Any] = {
    each.name: each.type() if each.type in (str, bool, int, float) else ()
    for each in fields(Record)
    if each.name in LLAMA_BENCH_FIELDS
}
_ONCE_SWITCHES = ("flash_attn", "no_op_offload")  # true and false in older ones
OWN_FIELDS = tuple(each.name for each in fields(Record) if each.name not in LLAMA_BENCH_FIELDS)


def record_of(
    measured: Measured,
    build: Build,
    limits: Limits,
    *,
    settings: Mapping[str, str] | None = None,
    machine: Mapping[str, Any] | None = None,
    run_id: str = "",
) -> Record:
    """Say what was measured of a case."""
    case, tuning, opened = measured.case, measured.tuning, measured.opened
    samples_ns = tuple(round(sample.seconds * 1e9) for sample in measured.samples)
    rates = tuple(sample.per_second for sample in measured.samples)
    avg_ts = statistics.fmean(rates)
    firsts = [sample.first_seconds for sample in measured.samples if sample.first_seconds is not None]
    gbps = _read_per_second(opened.cost, avg_ts, case.n_prompt, case.n_parallel)
    flops = opened.cost.read_flops * avg_ts if case.n_prompt and not case.n_gen else None
    most_flops = limits.flops.get(opened.cost.type_name.upper())
    loading = measured.loading
    return Record(
        build_commit=build.commit,
        build_number=0,
        cpu_info=build.cpu_info,
        gpu_info=build.gpu_info,
        backends=build.backends,
        model_filename=str(case.subject.files[0]),
        model_type=opened.description,
        model_size=opened.size_bytes,
        model_n_params=opened.n_params,
        n_batch=tuning.n_batch or 0,
        n_ubatch=tuning.n_ubatch or 0,
        n_threads=tuning.n_threads or 0,
        cpu_mask="0x0",
        cpu_strict=False,
        poll=50,
        type_k=tuning.type_k or "f16",
        type_v=tuning.type_v or "f16",
        n_gpu_layers=opened.n_gpu_layers if tuning.n_gpu_layers is None else tuning.n_gpu_layers,
        n_cpu_moe=0,
        split_mode="layer",
        main_gpu=0,
        no_kv_offload=False,
        flash_attn=-1 if tuning.flash_attention is None else int(tuning.flash_attention),
        devices="auto",
        tensor_split="0.00",
        tensor_buft_overrides="none",
        load_mode="auto",
        lazy_mode="auto",
        embeddings=False,
        no_op_offload=0,
        no_host=False,
        repack=True,
        fit_target=0,
        fit_min_ctx=0,
        n_prompt=case.n_prompt,
        n_gen=case.n_gen,
        n_depth=case.n_depth_in_all,
        test_time=datetime.fromtimestamp(measured.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        avg_ns=int(statistics.fmean(samples_ns)),
        stddev_ns=int(_deviation(samples_ns)),
        avg_ts=avg_ts,
        stddev_ts=_deviation(rates),
        samples_ns=samples_ns,
        samples_ts=rates,
        test=case.test,
        model=case.subject.name,
        n_parallel=case.n_parallel,
        prompt_kind="text" if case.prompt else "random",
        quick_ts=max(sample.quick_per_second or sample.per_second for sample in measured.samples),
        ttft_seconds=statistics.median(firsts) if firsts else None,
        load_seconds_warm=loading.warm_seconds if loading else None,
        load_seconds_cold=loading.cold_seconds if loading else None,
        peak_memory_bytes=measured.peak_bytes or None,
        gpu_memory_bytes=measured.gpu_bytes,
        gbps=gbps / 1e9 if gbps is not None else None,
        bandwidth_share=gbps / limits.bytes_per_second if gbps and limits.bytes_per_second else None,
        flops=flops,
        flops_share=flops / most_flops if flops and most_flops else None,
        owm_version=build.owm_version,
        library=build.library,
        settings=settings or {},
        machine=machine or {},
        run_id=run_id,
    )


def test_name(record: Record) -> str:
    """Name a test as llama-bench does."""
    names = [f"pp{record.n_prompt}"] * (record.n_prompt > 0) + [f"tg{record.n_gen}"] * (record.n_gen > 0)
    return "+".join(names) + (f" @ d{record.n_depth}" if record.n_depth else "")


def _read_per_second(cost: Cost, rate: float, n_prompt: int, n_parallel: int) -> float | None:
    """Return the bytes of weights read per second, where that is one reading a step and what is read is known."""
    if n_prompt or (cost.has_experts and n_parallel > 1):
        return None
    return cost.read_bytes * rate / n_parallel


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST_NUMBER


def _is_kind(kind: str, value: object) -> bool:
    """Tell whether a value from a file is what a field's annotation says."""
    if value is None:
        return "None" in kind
    if "Mapping" in kind:
        return isinstance(value, Mapping) and isinstance(value.get("fingerprint", ""), str)
    if "bool" in kind:
        return isinstance(value, bool)
    if "str" in kind:
        return isinstance(value, str)
    if "float" in kind:
        return _is_number(value)
    return isinstance(value, int) and _is_number(value)
