"""Adapters: what `--lora` takes, and files that do not belong to a model, found out from headers alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.engine.adapter import AdapterChoice, check_adapter, read_adapter
from owm.errors import MalformedFile, NotFound, OwmError, Unsupported, UsageError
from owm.formats.gguf import read_header
from support.tiny_adapter import factors, write_adapter
from support.tiny_gguf import vocabulary, write_tiny_gguf

Q, V, DOWN = "blk.0.attn_q.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight"
SHAPES = {Q: (64, 64), V: (32, 64), DOWN: (64, 128)}
EMBEDDINGS = "token_embd.weight"
N_VOCAB = len(vocabulary()[0])


def pair(name: str, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    a, b = factors(name, *(shape or SHAPES[name]))
    return {f"{name}.lora_a": a, f"{name}.lora_b": b}


def looked_up() -> dict[str, np.ndarray]:
    """Return factors of the embeddings, which llama.cpp wants the other way round."""
    a, b = factors(EMBEDDINGS, N_VOCAB, 64)
    return {f"{EMBEDDINGS}.lora_a": b, f"{EMBEDDINGS}.lora_b": a.T.copy()}


def check(tmp_path: Path, tensors: Mapping[str, np.ndarray], **how: Any) -> tuple[str, ...]:
    model = read_header(write_tiny_gguf(tmp_path / "model.gguf"))
    return check_adapter(write_adapter(tmp_path / "adapter.gguf", tensors, **how), [model])


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.gguf", "a.gguf", 1.0),
        ("a.gguf=0.5", "a.gguf", 0.5),
        ("a.gguf=-2", "a.gguf", -2.0),
        ("a.gguf=.5", "a.gguf", 0.5),
        ("a.gguf=1e-2", "a.gguf", 0.01),
        ("a=b.gguf", "a=b.gguf", 1.0),
        ("a=b.gguf=3", "a=b.gguf", 3.0),
        ("a=2=1", "a=2", 1.0),
        (r"C:\loras\a.gguf", r"C:\loras\a.gguf", 1.0),
        (r"C:\loras\a.gguf=0.25", r"C:\loras\a.gguf", 0.25),
        ("a.gguf=1_0", "a.gguf=1_0", 1.0),
        ("a.gguf=0.5x", "a.gguf=0.5x", 1.0),
    ],
)
def test_only_a_number_at_the_end_is_a_scale(text: str, path: str, scale: float) -> None:
    assert read_adapter(text) == AdapterChoice(Path(path), scale)


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert read_adapter("~/a.gguf=2").path == Path("/home/anna/a.gguf")


@pytest.mark.parametrize("text", ["", "=0.5", "a.gguf=", "a.gguf=nan", "a.gguf=inf", "a.gguf=-Infinity", "a.gguf=1e39"])
def test_a_scale_that_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_adapter(text)


def test_an_adapter_of_the_model_passes_in_silence(tmp_path: Path) -> None:
    assert check(tmp_path, pair(Q) | pair(V) | pair(DOWN) | looked_up()) == ()


def test_an_adapter_without_alpha_is_one(tmp_path: Path) -> None:
    assert check(tmp_path, pair(Q), metadata={"adapter.lora.alpha": None}) == ()


def test_factors_are_looked_for_in_all_shards(tmp_path: Path) -> None:
    whole = write_tiny_gguf(tmp_path / "model.gguf")
    other = write_tiny_gguf(tmp_path / "other.gguf", n_blocks=1)
    adapter = write_adapter(tmp_path / "adapter.gguf", pair(V))
    assert check_adapter(adapter, [read_header(other), read_header(whole)]) == ()
    with pytest.raises(UsageError, match=r"adapts blk\.1\.attn_v\.weight, which other\.gguf does not have"):
        check_adapter(adapter, [read_header(other)])


def test_norms_that_llama_cpp_leaves_out_are_said(tmp_path: Path) -> None:
    (note,) = check(tmp_path, pair(Q) | {"blk.0.attn_norm.weight": np.ones(64, np.float32)})
    assert "1 norms" in note


def test_an_adapter_for_another_architecture_names_both(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"adapter\.gguf was made for a qwen2 model, model\.gguf is a llama model"):
        check(tmp_path, pair(Q), architecture="qwen2")


@pytest.mark.parametrize(
    "tensors",
    [
        pair(Q, (64, 32)),  # inputs
        pair(Q, (32, 64)),  # outputs
        pair(Q) | {f"{Q}.lora_b": np.ones((64, 5), np.float32)},  # ranks
        {f"{Q}.lora_a": np.ones((3, 4, 64), np.float32), f"{Q}.lora_b": np.ones((3, 64, 4), np.float32)},  # experts
        {f"{Q}.lora_a": pair(Q)[f"{Q}.lora_b"], f"{Q}.lora_b": pair(Q)[f"{Q}.lora_a"]},  # the two exchanged
        pair(EMBEDDINGS, (N_VOCAB, 64)),  # not turned
        looked_up() | {f"{EMBEDDINGS}.lora_b": np.ones((64, 5), np.float32)},
        pair("blk.0.attn_norm.weight", (1, 64)),  # no matrix
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    name = next(iter(tensors)).removesuffix(".lora_a")
    with pytest.raises(UsageError) as caught:
        check(tmp_path, tensors)
    assert f"made for another model: its factors of {name} are" in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind", "word"),
    [
        (pair(Q), {"adapter.lora.alpha": float("nan")}, MalformedFile, "alpha is nan"),
        (pair(Q), {"adapter.lora.alpha": float("inf")}, MalformedFile, "alpha is inf"),
        (pair(Q), {"adapter.lora.alpha": -1.0}, MalformedFile, "alpha is -1"),
        (pair(Q), {"adapter.lora.alpha": np.float64(6)}, MalformedFile, "no 32-bit float"),
        (pair(Q), {"adapter.lora.alpha": "6"}, MalformedFile, "no 32-bit float"),
        (dict(list(pair(Q).items())[:1]), {}, MalformedFile, "only one of the two factors"),
        ({}, {}, MalformedFile, "adapts nothing"),
        ({Q: np.ones((64, 64), np.float32)}, {}, MalformedFile, "no factor of a LoRA"),
        ({"lora_a": np.ones((4, 64), np.float32)}, {}, MalformedFile, "no factor of a LoRA"),
        (pair(f"{Q}.lora_a.x", (64, 64)), {}, MalformedFile, "no factor of a LoRA"),
        ({name: array.astype(np.int32) for name, array in pair(Q).items()}, {}, Unsupported, "cannot be multiplied"),
        (pair(Q), {"adapter.alora.invocation_tokens": [1, 2]}, Unsupported, "aLoRA"),
        (pair(Q), {"adapter.type": "control_vector"}, Unsupported, "type control_vector"),
        (pair(Q), {"adapter.type": None}, Unsupported, "type None"),
        (pair(Q), {"general.type": None}, Unsupported, "is no adapter"),
        (pair(Q), {"general.type": "model"}, Unsupported, "it is a file of type model"),
    ],
)
def test_what_llama_cpp_would_abort_on_or_not_apply_is_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, Any], kind: type[OwmError], word: str
) -> None:
    with pytest.raises(kind, match=word):
        check(tmp_path, tensors, metadata=metadata)


def test_embeddings_that_are_the_output_too_cannot_be_adapted(tmp_path: Path) -> None:
    model = read_header(write_tiny_gguf(tmp_path / "model.gguf"))
    tied = type(model)(
        model.path,
        model.version,
        model.metadata,
        tuple(tensor for tensor in model.tensors if tensor.name != "output.weight"),
        model.alignment,
        model.data_offset,
        model.file_bytes,
    )
    adapter = write_adapter(tmp_path / "adapter.gguf", looked_up())
    with pytest.raises(Unsupported, match="one matrix for input and output"):
        check_adapter(adapter, [tied])


def test_a_missing_file_is_named_and_a_wrong_scale_explained(tmp_path: Path) -> None:
    model = read_header(write_tiny_gguf(tmp_path / "model.gguf"))
    with pytest.raises(NotFound) as caught:
        check_adapter(tmp_path / "a.gguf=0.5x", [model])
    assert "no such adapter" in str(caught.value)
    assert "FILE=0.5" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["folder", "adapter_model.safetensors"])
def test_what_peft_saved_is_to_be_converted_first(tmp_path: Path, name: str) -> None:
    model = read_header(write_tiny_gguf(tmp_path / "model.gguf"))
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"x")
    with pytest.raises(Unsupported) as caught:
        check_adapter(path, [model])
    assert "owm convert --lora" in (caught.value.hint or "")


@pytest.mark.parametrize("cut", [3, 40, 200, -1])
def test_a_damaged_file_never_reaches_llama_cpp(tmp_path: Path, cut: int) -> None:
    model = read_header(write_tiny_gguf(tmp_path / "model.gguf"))
    path = write_adapter(tmp_path / "adapter.gguf", pair(Q))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(MalformedFile):
        check_adapter(path, [model])
