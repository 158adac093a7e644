"""`owm convert --lora`: adapters as PEFT saves them, what they adapt, and what is refused by name."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from owm.convert.conversion import convert_folder
from owm.convert.lora import AdapterConversion, execute_adapter, plan_adapter
from owm.errors import OwmError
from owm.events import Event, Warned
from support.hub_server import HubServer, Repo
from support.run import Output, run
from support.tiny_checkpoint import files_of, write_tiny_checkpoint
from support.tiny_safetensors import pack

Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.1.self_attn.k_proj"
DOWN = "model.layers.1.mlp.down_proj"
SHAPES = {Q: (64, 64), K: (32, 64), DOWN: (64, 128)}  # of the tiny checkpoint
RANK, ALPHA = 4, 6


def convert(*args: str | os.PathLike[str]) -> Output:
    return run(["-m", "owm", "convert", *args])


def pair(module: str, shape: tuple[int, int], rank: int = RANK, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng([seed, *module.encode()])
    n_out, n_in = shape
    return {
        f"base_model.model.{module}.lora_A.weight": random.standard_normal((rank, n_in)).astype(np.float32),
        f"base_model.model.{module}.lora_B.weight": random.standard_normal((n_out, rank)).astype(np.float32),
    }


def write_adapter(
    folder: Path, tensors: dict[str, np.ndarray] | None = None, config: dict[str, Any] | None = None
) -> Path:
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **(config or {})}
    if tensors is None:
        tensors = {name: array for module, shape in SHAPES.items() for name, array in pair(module, shape).items()}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(pack(tensors))
    return folder


def base_with(folder: Path, **config: Any) -> Path:
    """Make a base of which only config.json is there."""
    folder.mkdir()
    (folder / "config.json").write_bytes(files_of(config=config)["config.json"])
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_with(tmp_path / "base")


def test_an_adapter_changes_what_merging_it_would(tmp_path: Path) -> None:
    changed = {}
    for module, shape in SHAPES.items():
        a, b = pair(module, shape).values()
        changed[f"{module}.weight"] = (b @ a * (ALPHA / RANK)).astype(np.float32)
    zeros = {name: np.zeros_like(array) for name, array in changed.items()}
    plain = write_tiny_checkpoint(tmp_path / "plain", tensors=zeros)
    merged = write_tiny_checkpoint(tmp_path / "merged", tensors=changed)
    done = convert("--lora", write_adapter(tmp_path / "adapter"), "--base", plain, "-o", tmp_path / "a.gguf")
    assert done.exit_code == 0, done.stderr
    assert done == f"{tmp_path / 'a.gguf'}\n"
    convert_folder(merged, tmp_path / "merged.gguf", type="f32", check=False)

    reader = GGUFReader(tmp_path / "a.gguf")
    said = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert said["general.type"] == "adapter"
    assert said["general.architecture"] == "llama"
    assert said["adapter.type"] == "lora"
    assert said["adapter.lora.alpha"] == ALPHA
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert len(found) == 2 * len(SHAPES)
    expected = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(tmp_path / "merged.gguf").tensors}
    for name in ("blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.ffn_down.weight"):
        change = found[f"{name}.lora_b"] @ found[f"{name}.lora_a"] * (ALPHA / RANK)
        np.testing.assert_allclose(change, expected[name], rtol=1e-4, atol=1e-5)


def test_the_base_that_an_adapter_names_costs_its_config_only(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(Repo("acme/tiny", files_of()))
    write_adapter(tmp_path / "pirate", config={"base_model_name_or_path": "acme/tiny"})
    monkeypatch.chdir(tmp_path)
    done = convert("--lora", "pirate", "--type", "f16")
    assert done == "pirate-F16-LoRA.gguf\n", done.stderr
    assert "the base is acme/tiny" in done.stderr
    assert hub.asked("config.json", "GET")
    assert not hub.asked("safetensors", "GET")
    assert not hub.asked("tokenizer", "GET")


def test_scaling_of_its_own_goes_into_the_matrix(tmp_path: Path, base: Path) -> None:
    """rsLoRA divides by the root of the rank, and a module may have an alpha of its own; llama.cpp knows neither."""
    tensors = pair(Q, SHAPES[Q]) | pair(K, SHAPES[K], rank=16) | pair(DOWN, SHAPES[DOWN])
    config = {"use_rslora": True, "alpha_pattern": {"down_proj": 12}}
    planned = plan_adapter(write_adapter(tmp_path / "adapter", tensors, config), base)
    out = written(planned, tmp_path)
    alpha = float(out.fields["adapter.lora.alpha"].contents())
    assert alpha == ALPHA * 2  # the root of 4
    found = {tensor.name: np.array(tensor.data) for tensor in out.tensors}
    for module, name, rank, wanted in ((K, "blk.1.attn_k", 16, ALPHA / 4), (DOWN, "blk.1.ffn_down", 4, 12 / 2)):
        b = tensors[f"base_model.model.{module}.lora_B.weight"]
        scaled = np.sort(found[f"{name}.weight.lora_b"].reshape(-1)) * (alpha / rank)
        np.testing.assert_allclose(scaled, np.sort(b.reshape(-1)) * wanted, rtol=1e-5)


def written(planned: AdapterConversion, folder: Path, events: list[Event] | None = None) -> GGUFReader:
    execute_adapter(planned, [folder / "adapter.gguf"], sink=events.append if events is not None else lambda _: None)
    return GGUFReader(folder / "adapter.gguf")


def test_what_llama_cpp_leaves_out_is_said(tmp_path: Path, base: Path) -> None:
    norm = {"base_model.model.model.layers.0.input_layernorm.weight": np.ones(64, np.float32)}
    eyes = pair("model.vision_tower.layers.0.q_proj", (8, 8))
    events: list[Event] = []
    planned = plan_adapter(write_adapter(tmp_path / "adapter", pair(Q, SHAPES[Q]) | norm | eyes), base)
    names = [tensor.name for tensor in written(planned, tmp_path, events).tensors]
    q = "blk.0.attn_q.weight"
    assert sorted(names) == ["blk.0.attn_norm.weight", f"{q}.lora_a", f"{q}.lora_b"]
    said = " ".join(event.message for event in events if isinstance(event, Warned))
    assert "1 matrices are left out" in said
    assert "1 norms" in said


def test_experts_are_stacked_if_all_are_adapted(tmp_path: Path) -> None:
    mixtral = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2}
    base = base_with(tmp_path / "base", **mixtral)
    experts = [f"model.layers.0.block_sparse_moe.experts.{i}.w1" for i in range(4)]
    tensors = [pair(module, (128, 64)) for module in experts]
    whole = write_adapter(tmp_path / "whole", {name: array for each in tensors for name, array in each.items()})
    found = {tensor.name: tensor.data for tensor in written(plan_adapter(whole, base), tmp_path).tensors}
    for letter, name in (("a", "lora_A"), ("b", "lora_B")):
        stacked = np.stack(
            [each[f"base_model.model.{m}.{name}.weight"] for m, each in zip(experts, tensors, strict=True)]
        )
        np.testing.assert_array_equal(found[f"blk.0.ffn_gate_exps.weight.lora_{letter}"], stacked)
    some = write_adapter(tmp_path / "some", tensors[0] | tensors[1])
    with pytest.raises(OwmError, match="2 experts of"):
        plan_adapter(some, base)


EMBEDDING = {
    "base_model.model.model.embed_tokens.lora_embedding_A": np.ones((4, 300), np.float32),
    "base_model.model.model.embed_tokens.lora_embedding_B": np.ones((64, 4), np.float32),
}
TIED = {"tie_word_embeddings": True}
HALF = dict(list(pair(Q, SHAPES[Q]).items())[:1])
SPLIT_RANK = HALF | {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": np.ones((64, 5), np.float32)}
WHOLE = {"base_model.model.lm_head.modules_to_save.weight": np.ones((4, 64), np.float32)}
MLA = {
    "architectures": ["DeepseekV2ForCausalLM"], "kv_lora_rank": 8, "q_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 16,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "config", "base_config", "word"),
    [
        (None, {"peft_type": "IA3"}, {}, "IA3"),
        (None, {"use_dora": True}, {}, "DoRA"),
        (None, {"bias": "all"}, {}, "biases"),
        (None, {"modules_to_save": ["lm_head"]}, {}, "lm_head"),
        (None, {"init_lora_weights": "pissa_niter_4"}, {}, "pissa"),
        (None, {"target_parameters": ["experts.gate_up_proj"]}, {}, "target_parameters"),
        (None, {"alora_invocation_tokens": [1, 2]}, {}, "invocation"),
        (None, {"alpha_pattern": {"(a+)+b": 3}}, {}, "regular expression"),
        (None, {"lora_alpha": 0}, {}, "lora_alpha"),
        (None, {"lora_alpha": "much"}, {}, "lora_alpha"),
        (None, {"fan_in_fan_out": True}, {"num_key_value_heads": 4}, "fan_in_fan_out"),
        (None, {}, {"architectures": ["PerceiverForCausalLM"]}, "PerceiverForCausalLM"),
        (None, {}, {"num_attention_heads": 5}, "heads"),
        (HALF, {}, {}, "only one of the two"),
        (SPLIT_RANK, {}, {}, "do not go together"),
        (WHOLE, {}, {}, "no factor of a LoRA"),
        (EMBEDDING, {}, TIED, "ties"),
        (pair("lm_head", (300, 64)), {}, TIED, "ties"),
        (pair("model.layers.0.self_attn.classifier", (4, 64)), {}, {}, "no place for"),
        (pair("model.layers.7.self_attn.o_proj", (64, 64)), {}, {}, "no place for"),
        (pair("model.layers.0.self_attn.q_a_proj", (16, 64)), {}, MLA, "has no adapters"),
        (pair("model.layers.0.self_attn.kv_b_proj", (64, 8)), {}, MLA, "no adapters"),
        (pair("layers.0.self_attn.q_proj", (64, 64)), {}, {}, "AutoModel"),
        (pair("model.vision_tower.layers.0.q_proj", (8, 8)), {}, {}, "nothing of the language model"),
        ({"a.lora_A.weight": np.ones((4, 4), np.int64)}, {}, {}, "I64"),
    ],
)
def test_what_llama_cpp_cannot_adapt_is_refused_by_name(
    tmp_path: Path, tensors: Any, config: dict[str, Any], base_config: dict[str, Any], word: str
) -> None:
    base = base_with(tmp_path / "base", **base_config)
    with pytest.raises(OwmError, match=word):
        plan_adapter(write_adapter(tmp_path / "adapter", tensors, config), base)


def test_an_adapter_of_another_model_is_found_out_by_the_bases_weights(tmp_path: Path) -> None:
    base = write_tiny_checkpoint(tmp_path / "base")
    other = write_adapter(tmp_path / "adapter", pair(DOWN, (64, 96)))
    with pytest.raises(OwmError, match="made for another model"):
        plan_adapter(other, base)


def test_a_pickle_is_never_opened(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(OwmError, match="pickle"):
        plan_adapter(adapter, base)


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["--lora", "adapter"], 2, "does not say what it adapts"),
        (["--lora", "adapter", "--base", "nowhere/"], 2, "nowhere"),
        (["--lora", "base", "--base", "base"], 3, "is no adapter"),
        (["--lora", "adapter", "--base", "adapter"], 3, "is no checkpoint"),
        (["base", "--lora", "adapter"], 2, "--lora does not go with SOURCE"),
        (["base", "--base", "base"], 2, "--base goes with --lora only"),
        ([], 2, "nothing to convert"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, word: str
) -> None:
    write_adapter(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    done = convert(*args)
    assert (done.exit_code, done) == (code, ""), done.stderr
    assert word in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
