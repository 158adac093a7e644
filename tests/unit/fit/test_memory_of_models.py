"""What llama.cpp allocates, told from headers, against what a real load of the same file logs."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.engine.model import ENCODERS
from owm.engine.tuning import Tuning
from owm.errors import Unsupported
from owm.fit import memory
from owm.fit.memory import Asked
from owm.formats.gguf import read_header
from owm.library import quantizing
from owm.native import llama
from owm.native.guard import Child
from owm.pipeline.plan import make_plan
from owm.store.model import StoredModel
from support.tiny_bert import write_tiny_bert
from support.tiny_gguf import write_tiny_gguf
from support.tiny_moe import write_tiny_moe
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba
from support.tiny_sliding import write_tiny_falcon_h1, write_tiny_gemma3

pytestmark = pytest.mark.slow

_BUFFER = re.compile(r"^\w+: +\S+ +(?:model|KV|RS|output|compute) buffer size = +([\d.]+) MiB", re.MULTILINE)
_COPY = re.compile(r"^\w+: +CPU_REPACK model buffer size = +([\d.]+) MiB", re.MULTILINE)
MIB = 1 << 20
# Sizes in a log have two decimals, and there are some five of them.
ROUNDING = 5 * 0.005 * MIB
MAKERS: dict[str, Callable[[Path], Path]] = {
    "llama": write_tiny_gguf,
    "experts": write_tiny_moe,
    "mamba": write_tiny_mamba,
    "hybrid": write_tiny_hybrid,
    "gemma3": write_tiny_gemma3,
    "falcon-h1": write_tiny_falcon_h1,
    "bert": write_tiny_bert,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"n_ctx": 512},
    "long": {"n_ctx": 4096},
    "odd": {"n_ctx": 300},
    "parallel": {"n_ctx": 256, "n_parallel": 4},
    "no flash attention": {"n_ctx": 1024, "flash_attention": False},
    "small batches": {"n_ctx": 1024, "n_batch": 256, "n_ubatch": 64},
}


@pytest.fixture(scope="module")
def child():
    with Child() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def logged(path: Path, asked: Asked) -> tuple[float, float]:
    """Load a model and make its context; return all that it allocates, and the copy in another layout, in bytes."""
    said: list[str] = []
    llama.start(said.append)
    try:
        model = llama.Model(path, n_gpu_layers=0)
        wish = asked.wish()
        context = llama.Context(
            model,
            n_ctx=wish.n_ctx,
            n_batch=wish.n_batch,
            n_ubatch=wish.n_ubatch,
            n_sequences=wish.n_sequences,
            n_threads=1,
            n_threads_batch=1,
            flash_attention=wish.flash_attention,
            type_k=wish.type_k,
            type_v=wish.type_v,
        )
        context.close()
        model.close()
    finally:
        llama.start(None)
    log = "".join(said)
    return MIB * sum(map(float, _BUFFER.findall(log))), MIB * sum(map(float, _COPY.findall(log)))


def check(path: Path, asked: Asked, child: Child) -> memory.Need:
    need = memory.measure([read_header(path)], asked, child, path=path)
    real, copied = logged(path, asked)
    assert need.allocated_bytes == pytest.approx(real, rel=0.01, abs=ROUNDING)
    assert need.cpu.repack_bytes == pytest.approx(copied, abs=ROUNDING)
    return need


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_allocated_is_told_within_one_per_cent(name: str, setting: str, folder: Path, child: Child) -> None:
    path = folder / f"{name}.gguf"
    if not path.exists():
        MAKERS[name](path)
    values = dict(SETTINGS[setting])
    check(path, Asked(values.pop("n_ctx"), Tuning(**values)), child)


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_K_M", "IQ4_NL", "Q8_0", "Q2_K", "Q3_K_M", "Q6_K", "Q4_1", "Q5_K_S"])
@pytest.mark.parametrize("layout", ["plain", "tied", "experts"])
def test_the_copy_in_another_layout_is_told(layout: str, type_name: str, folder: Path, child: Child) -> None:
    source = folder / f"{layout}-256.gguf"
    if not source.exists():
        if layout == "experts":
            write_tiny_moe(source, n_embd=64, n_ff=256)
        else:
            write_tiny_gguf(source, n_embd=256, n_blocks=2)
    path = quantized(source, folder / f"{layout}-{type_name}.gguf", type_name, child, is_tied=layout == "tied")
    check(path, Asked(512), child)


def quantized(source: Path, path: Path, type_name: str, child: Child, *, is_tied: bool) -> Path:
    opened = quantizing.of_model(StoredModel(str(source), None, (source,)), str(source))
    if is_tied:
        tensors = [tensor for tensor in opened.plan.tensors if tensor.name != "output.weight"]
        opened = replace(opened, plan=make_plan(opened.plan.metadata, tensors, origin=opened.plan.origin))
    [planned] = quantizing.plan(opened, [type_name], child)
    quantizing.write(opened, [planned], [[path]], child)
    return path


def test_a_type_of_the_cache_that_llama_does_not_take_is_an_error_in_its_words(folder: Path, child: Child) -> None:
    path = folder / "llama.gguf"
    if not path.exists():
        write_tiny_gguf(path)
    with pytest.raises(Unsupported, match="does not divide"):
        memory.measure([read_header(path)], Asked(512, Tuning(type_k="q8_0")), child, path=path)


def test_other_types_of_the_cache_are_counted(folder: Path, child: Child) -> None:
    path = write_tiny_gguf(folder / "wide.gguf", n_embd=256)
    plain = check(path, Asked(4096), child)
    small = check(path, Asked(4096, Tuning(type_k="q8_0", type_v="q8_0")), child)
    assert small.cpu.kv_bytes == pytest.approx(plain.cpu.kv_bytes * 34 / 64, abs=ROUNDING)


def test_a_model_in_other_types_is_told_from_the_header_of_one(folder: Path, child: Child) -> None:
    source = write_tiny_gguf(folder / "other.gguf", n_embd=256)
    made = quantized(source, folder / "other-Q4_0.gguf", "Q4_0", child, is_tied=False)
    own = read_header(made)
    types = {tensor.name: tensor.type_name for tensor in own.tensors}
    whole = memory.measure([read_header(source)], Asked(512), child, path=source)
    told = memory.with_weights(whole, memory.retyped([read_header(source)], types), child)
    assert told.cpu == memory.measure([own], Asked(512), child, path=made).cpu


def test_layers_on_a_gpu_are_counted_there(folder: Path, child: Child) -> None:
    path = folder / "split.gguf"
    write_tiny_gguf(path, n_blocks=4)
    headers = [read_header(path)]
    here = memory.measure(headers, Asked(512), child, path=path)
    some = memory.with_weights(replace(here, n_gpu_layers=3), headers, child)  # two blocks and the output
    block = sum(tensor.n_bytes for tensor in headers[0].tensors if tensor.name.startswith("blk.3."))
    output = sum(tensor.n_bytes for tensor in headers[0].tensors if tensor.name.startswith("output"))
    assert some.gpu.weights_bytes == 2 * block + output
    assert some.cpu.weights_bytes < here.cpu.weights_bytes


def test_many_recurrent_states_are_told_without_making_them(
    folder: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_mamba(folder / "states.gguf")
    asked = Asked(64, Tuning(n_parallel=16))
    real, _ = logged(path, asked)
    monkeypatch.setattr(memory, "MAX_STATE_BYTES", 1)
    need = memory.measure([read_header(path)], asked, child, path=path)
    assert need.allocated_bytes == pytest.approx(real, rel=0.2)
    assert need.cpu.state_bytes > 10 * need.cpu.output_bytes


def test_architectures_without_an_output_of_words_are_known_by_their_names() -> None:
    assert [name for name in ENCODERS if not memory._NO_OUTPUT.fullmatch(name)] == []
