"""Types for a target size, for the command line and for Python: trials are measured, and a recipe comes of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from owm.engine.context import COMPUTE_BYTES, MEMORY_SHARE, kv_bytes_per_token
from owm.errors import NotEnoughMemory, UsageError
from owm.events import Sink, Warned, ignore
from owm.formats.gguf import read_header
from owm.formats.imatrix import Imatrix
from owm.hardware import probe
from owm.library import quantizing
from owm.library.quantizing import Source
from owm.library.working import work_folder
from owm.native.guard import Child
from owm.pipeline import writer
from owm.pipeline.hollow import hollow_file
from owm.pipeline.plan import Plan, make_plan
from owm.pipeline.rows import QUANT_BLOCKS, DType, FileRows, Rows
from owm.quality import calibration
from owm.quality.divergence import Reference
from owm.quality.texts import Text
from owm.quantize.quantization import Layout, Quantization, apply_recipe
from owm.quantize.recipe import Choice, Overrides, Recipe, stock_recipes
from owm.quantize.types import FILE_TYPE_IDS, UNQUANTIZED
from owm.store.local import Store
from owm.tailor.choice import Rated, rate
from owm.tailor.recipe_file import Tailored
from owm.units import format_bytes

BASE = "Q8_0"
STAGE = "trials"
# Slopes are ratios of large, paired differences: few chunks tell them, and of large models fewer are affordable.
N_TRIAL_CHUNKS, N_TRIAL_CHUNKS_LARGE, LARGE_PARAMS = 8, 4, 1_000_000_000
_COMPARED = 2  # stock recipes that a choice is measured against


class Trials:
    """Files of a model in types that are tried, written and measured against a reference, one after another.

    Tensors that are the same in the first file or in the last one are copied from there.
    """

    def __init__(
        self, base: Plan, folder: Path, reference: Reference, n_threads: int | None, lock: ExitStack | None = None
    ) -> None:
        """Take the lock that keeps other processes from the same files; it is let go with them."""
        self._base = base
        self._stem = folder / f"trial-{base.digest()[:12]}"
        self._reference = reference
        self._n_threads = n_threads
        self._known: list[dict[tuple[str, str], Rows]] = []
        self._n_made = 0
        self._lock = lock or ExitStack()

    def __enter__(self) -> "Trials":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files, and let go of the reference."""
        self._reference.close()
        for number in range(3):
            self._path(number).unlink(missing_ok=True)
        self._lock.close()

    def measure(self, types: Mapping[str, str]) -> float:
        """Return the mean divergence of the model in some types."""
        tensors = []
        for tensor in self._base.tensors:
            type_name = types.get(tensor.name, tensor.type_name)
            known = next((rows for each in self._known if (rows := each.get((tensor.name, type_name)))), tensor.rows)
            tensors.append(replace(tensor, rows=known, type_name=type_name))
        trial = make_plan(self._base.metadata, tensors, origin=f"{self._base.origin} {self._n_made}")
        number = 0 if self._n_made == 0 else 1 + self._n_made % 2
        path = self._path(number)
        path.unlink(missing_ok=True)
        writer.write(trial, [path], n_threads=self._n_threads, digest=False, stage="trial")
        self._n_made += 1
        written: dict[tuple[str, str], Rows] = {}
        for tensor, offset in zip(trial.files[0].tensors, trial.files[0].offsets, strict=True):
            if (kept := quantized_type(tensor.type_name)) is not None:
                written[tensor.name, kept] = FileRows(path, offset, tensor.rows.shape, kept)
        self._known = [*self._known[:1], written]
        return float(self._reference.measure([path], is_own=True).kld_mean().value)

    def _path(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{number}.gguf")


def quantized_type(type_name: str) -> DType | None:
    """Return a quantized type as a type of rows, None for another."""
    return next((name for name in QUANT_BLOCKS if name == type_name), None)


def plan_base(source: Source, child: Child, imatrix: Imatrix | None, *, allow_requantize: bool = False) -> Quantization:
    """Plan the model in the type that trials start from."""
    return quantizing.plan(source, [BASE], child, imatrix=imatrix, allow_requantize=allow_requantize)[0]


def trial_text() -> Text:
    """Return the text of the trials: the calibration text, so that the evaluation text stays unseen."""
    found = calibration.bundled()
    content = "\n".join(part.text for part in found.parts if part.text)
    return Text(found.name, content, found.sha256)


def fitting_bytes(source: Source, n_ctx: int) -> int:
    """Return how large a model file of this architecture this machine can hold with a context of `n_ctx` tokens.

    Raises:
        NotEnoughMemory: not even the context fits.
    """
    with hollow_file(source.plan) as path:
        context_bytes = n_ctx * kv_bytes_per_token(read_header(path))
    total = probe.memory().total
    left = int(total * MEMORY_SHARE) - context_bytes - COMPUTE_BYTES
    if left <= 0:
        raise NotEnoughMemory(
            f"a context of {n_ctx} tokens takes {format_bytes(context_bytes)}, this machine has {format_bytes(total)}",
            needed=context_bytes + COMPUTE_BYTES,
            free=total,
            hint="a smaller `--ctx-size`",
        )
    return left


def rate_types(
    base: Quantization,
    files: Sequence[Path],
    text: Text,
    store: Store,
    *,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> tuple[Rated, Trials]:
    """Find out what choices of types would lose, by trials against the source on a text; close the trials after use.

    Args:
        files: the source as files that run.
    """
    n_chunks = N_TRIAL_CHUNKS if base.plan.n_params < LARGE_PARAMS else N_TRIAL_CHUNKS_LARGE
    folder, lock = work_folder(store), ExitStack()
    lock.enter_context(
        store.lock(folder / base.plan.digest(), on_wait=lambda: sink(Warned(STAGE, "waiting for another owm's trials")))
    )
    try:
        reference = Reference(list(files), text, n_chunks=n_chunks, n_threads=n_threads, sink=sink)
    except BaseException:
        lock.close()
        raise
    trials = Trials(base.plan, folder, reference, n_threads, lock)
    try:
        return rate(base.plan, trials.measure, sink=sink), trials
    except BaseException:
        trials.close()
        raise


def choose(
    rated: Rated, source: Source, target_bytes: int, child: Child, *, has_imatrix: bool, sink: Sink = ignore
) -> Tailored:
    """Choose types for a size, measured against llama.cpp's own recipes that are nearly as large.

    Raises:
        UsageError: the target is below the smallest possible size.
    """
    stock: list[tuple[int, str, dict[str, str]]] = []
    for name in FILE_TYPE_IDS:
        if name in UNQUANTIZED:
            continue
        with suppress(KeyError, UsageError):  # types that are not chosen among, or that do not fit this model
            (recipe,) = stock_recipes(source.plan, [name], Overrides(), child, has_imatrix=has_imatrix)
            types = {tensor: choice.type_name for tensor, choice in recipe.choices.items()}
            stock.append((_size(rated, types), name, types))
    nearest = sorted((each for each in stock if each[0] <= target_bytes), key=lambda each: -each[0])[:_COMPARED]
    return rated.choose(target_bytes, {name: types for _, name, types in nearest}, sink=sink)


def planned(
    source: Source,
    tailored: Tailored,
    base: Quantization,
    *,
    imatrix: Imatrix | None,
    assumed: Imatrix | None = None,
    allow_requantize: bool = False,
    layout: Layout | None = None,
) -> Quantization:
    """Plan a model in the types of a tailored recipe.

    Raises:
        UsageError: the recipe is another model's.
    """
    open_names = {name for name, choice in base.recipe.choices.items()}
    unknown = next((name for name in tailored.types if name not in open_names), None)
    if unknown is not None:
        raise UsageError(f"the recipe is another model's: this one has no tensor {unknown}")
    choices = dict(base.recipe.choices)
    for name, type_name in tailored.types.items():
        left = choices[name]
        if left.reason == "recipe" and left.type_name not in QUANT_BLOCKS and type_name != left.type_name:
            raise UsageError(
                f"the recipe makes {name} {type_name}, and llama.cpp runs it as {left.type_name} only",
                hint="leave it out of the recipe",
            )
        choices[name] = Choice(type_name, "tailored")
    made = apply_recipe(
        source.plan,
        Recipe(_file_type(base.plan, tailored.types), choices),
        imatrix=imatrix,
        assumed=assumed,
        allow_requantize=allow_requantize,
        layout=layout,
        metadata=quantizing.reserved(),
    )
    bpw = 8 * made.plan.n_bytes / max(1, made.plan.n_params)
    return replace(made, label=f"{bpw:.2f}BPW")


def _size(rated: Rated, types: Mapping[str, str]) -> int:
    errors = rated.losses.errors
    if any(types[name] not in each.by_type for name, each in errors.items()):
        raise KeyError(next(iter(types)))
    return rated.fixed_bytes + sum(each.n_bytes(types[name]) for name, each in errors.items())


def _file_type(base: Plan, types: Mapping[str, str]) -> str:
    """Return the file type that says best what most weights are."""
    counted: Counter[str] = Counter()
    for tensor in base.tensors:
        counted[types.get(tensor.name, tensor.type_name)] += tensor.n_elements
    most = counted.most_common(1)[0][0]
    named = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}.get(most, most)
    return named if named in FILE_TYPE_IDS else "Q4_K_M"
