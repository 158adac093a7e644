"""`owm convert` as a process: checkpoints in, model files out, and what happens with bad ones."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.formats.gguf import read_header
from support.hub_server import HubServer, Repo
from support.run import Output, finish, run, run_here, start
from support.tiny_checkpoint import bf16, files_of, write_tiny_checkpoint
from support.tiny_safetensors import pack


def convert(*args: str | os.PathLike[str], **options: Any) -> Output:
    return run(["-m", "owm", "convert", *args], **options)


@pytest.fixture
def convert_here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    """The same command in this process: a third of the time, for what does not depend on the process."""

    def called(*args: str | os.PathLike[str]) -> Output:
        return run_here(capsys, "convert", *args)

    return called


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "tiny", n_shards=3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.gguf"


def refused(done: Output, code: int, *words: str) -> None:
    assert done.exit_code == code, done.stderr
    assert done == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]


def test_a_checkpoint_becomes_a_model_that_answers(checkpoint: Path, out: Path) -> None:
    done = convert(checkpoint, "-o", out)
    assert done.exit_code == 0, done.stderr
    assert done == f"{out}\n"
    assert "to BF16" in done.stderr
    header = read_header(out)
    assert header.architecture == "llama"
    assert header.file_type == "BF16"
    assert header.metadata["general.license"] == "apache-2.0"
    assert header.metadata["general.sampling.temp"] == 0.25
    answer = run(["-m", "owm", "run", out, "the tin", "-n", "4"])
    assert answer.exit_code == 0, answer.stderr
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.gguf", "tiny"]


def test_without_an_output_the_file_lies_in_the_current_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert("tiny") == "tiny-BF16.gguf\n"
    assert (tmp_path / "tiny-BF16.gguf").exists()


@pytest.mark.parametrize(("asked", "made"), [("f32", "F32"), ("f16", "F16"), ("bf16", "BF16"), ("F16", "F16")])
def test_the_type_is_the_one_asked_for(
    checkpoint: Path, out: Path, asked: str, made: str, convert_here: Callable[..., Output]
) -> None:
    record = convert_here(checkpoint, "-o", out, "--type", asked, "--json").json
    assert record["type"] == made
    types = {tensor.name: tensor.type_name for tensor in read_header(out).tensors}
    assert types["blk.0.attn_q.weight"] == made
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert record["files"][0]["size_bytes"] == out.stat().st_size


def test_parts_load_as_one_model_and_none_is_too_large(checkpoint: Path, tmp_path: Path) -> None:
    done = convert(checkpoint, "-o", tmp_path / "parts.gguf", "--split-max-size", "70KB")
    paths = [Path(line) for line in done.splitlines()]
    assert len(paths) > 2
    assert paths[0].name == f"parts-00001-of-{len(paths):05}.gguf"
    assert all(path.stat().st_size <= 70_000 for path in paths)
    assert run(["-m", "owm", "run", paths[0], "the", "-n", "3"]).exit_code == 0


def test_a_dry_run_shows_every_tensor_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    done = convert(checkpoint, "-o", tmp_path / "x.gguf", "--dry-run", "--json").json
    assert {"name", "from", "to", "shape", "size_bytes", "reason"} == set(done["tensors"][0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]
    text = convert(checkpoint, "-o", tmp_path / "x.gguf", "--dry-run")
    assert "blk.1.ffn_down.weight" in text
    assert "would write" in text.stderr


# -- from the Hub ------------------------------------------------------------------------------------------------------


def publish(hub: HubServer, **options: Any) -> Repo:
    return hub.add(Repo("acme/tiny", files_of(**options)))


def test_a_repo_with_safetensors_only_runs_in_one_go(hub: HubServer) -> None:
    publish(hub, n_shards=2)
    done = run(["-m", "owm", "run", "acme/tiny", "the tin", "-n", "3"])
    assert done.exit_code == 0, done.stderr
    assert "pulling the original weights of acme/tiny" in done.stderr
    assert "quantizing acme/tiny to Q4_K_M" in done.stderr
    again = run(["-m", "owm", "run", "acme/tiny", "the tin", "-n", "3"], env={"HF_HUB_OFFLINE": "1"})
    assert again.exit_code == 0
    assert again.stderr == ""
    stored = run(["-m", "owm", "list", "--json"]).json
    assert [(model["name"], model["quant"]) for model in stored] == [("acme/tiny:Q4_K_M", "Q4_K_M")]
    assert run(["-m", "owm", "verify"]).exit_code == 0


def test_the_manifest_says_what_a_conversion_was_made_of(hub: HubServer, clean_environment: Path) -> None:
    repo = publish(hub, n_shards=2)
    path = Path(convert("acme/tiny", "--type", "f16").strip())
    made = json.loads((path.parent / "manifest.json").read_text())
    assert path.name == "tiny-F16.gguf"
    assert made["label"] == "F16"
    assert made["commit"] == repo.commit == made["made_from"]["commit"]
    sha256 = {file["path"]: file["sha256"] for file in made["made_from"]["files"]}
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        assert sha256[name] == repo.oid(name)
    assert {"config.json", "tokenizer.json"} < set(sha256)


def test_an_architecture_that_is_not_known_costs_no_weights(hub: HubServer) -> None:
    publish(hub, config={"architectures": ["LlamaForCausalLMX"]})
    done = run(["-m", "owm", "run", "acme/tiny", "hi"])
    refused(done, 5, "owm cannot convert LlamaForCausalLMX")
    assert "LlamaForCausalLM" in done.stderr
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.safetensors")), "no more than its header is looked at"


def test_a_type_that_nothing_makes_is_refused_before_the_download(hub: HubServer) -> None:
    publish(hub)
    refused(run(["-m", "owm", "pull", "acme/tiny:Q4_K_X"]), 3, "Q4_K_X")
    assert not hub.asked("safetensors", "GET")


@pytest.mark.parametrize("asked", ["BF16", "Q8_0"])
def test_the_type_named_with_a_repo_is_made(hub: HubServer, asked: str) -> None:
    publish(hub)
    assert run(["-m", "owm", "pull", f"acme/tiny:{asked.lower()}"]).exit_code == 0
    stored = run(["-m", "owm", "list", "--json"]).json
    assert [model["name"] for model in stored] == [f"acme/tiny:{asked}"]


def test_a_pull_says_what_it_would_do(hub: HubServer) -> None:
    publish(hub)
    done = run(["-m", "owm", "pull", "acme/tiny", "--dry-run"])
    assert "\nwould pull the original weights of acme/tiny" in done
    assert "quantize" in done


def test_pickles_are_refused_without_a_download(hub: HubServer) -> None:
    files = {name: content for name, content in files_of().items() if "safetensors" not in name}
    hub.add(Repo("acme/tiny", files | {"pytorch_model.bin": b"\x80\x04evil"}))
    refused(run(["-m", "owm", "run", "acme/tiny", "hi"]), 5)
    refused(convert("acme/tiny"), 5, "pickles")
    assert not hub.asked("pytorch_model.bin", "GET")


# -- bad checkpoints ---------------------------------------------------------------------------------------------------


def _edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def _missing_shard(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def _truncated(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _other_shape(folder: Path) -> None:
    _edit_config(folder, intermediate_size=96)


def _other_heads(folder: Path) -> None:
    _edit_config(folder, num_key_value_heads=4)


def _fewer_layers(folder: Path) -> None:
    _edit_config(folder, num_hidden_layers=1)


def _more_layers(folder: Path) -> None:
    _edit_config(folder, num_hidden_layers=3)


def _extra_tensor(folder: Path) -> None:
    write_tiny_checkpoint(folder, n_shards=3, tensors={"score.weight": bf16(np.ones((2, 64), np.float32))})


def _no_output(folder: Path) -> None:
    write_tiny_checkpoint(folder, n_shards=3, tensors={"lm_head.weight": None})


def _wrong_dtype(folder: Path) -> None:
    ids = np.ones((64, 64), np.int64)
    write_tiny_checkpoint(folder, n_shards=3, tensors={"model.layers.0.self_attn.q_proj.weight": ids})


def _unknown_architecture(folder: Path) -> None:
    _edit_config(folder, architectures=["PerceiverForCausalLM"])


def _unknown_activation(folder: Path) -> None:
    _edit_config(folder, hidden_act="gelu")


def _unknown_rope(folder: Path) -> None:
    _edit_config(folder, rope_scaling={"rope_type": "spiral", "factor": 2.0})


def _softcapping(folder: Path) -> None:
    _edit_config(folder, attn_logit_softcapping=50.0)


def _two_tokenizers(folder: Path) -> None:
    words = {"<|im_start|>": 0, "<|endoftext|>": 1, "a": 90, "b": 3}
    (folder / "vocab.json").write_text(json.dumps(words))


def _pickle(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04evil")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _config_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def _index_leaves_the_folder(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001-of", "../model-00001-of"))


def _index_names_more(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = "model-00001-of-00003.safetensors"
    path.write_text(json.dumps(index))


def _no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


BAD = [
    (_missing_shard, 7, ["lacks a shard", "model-00002-of-00003.safetensors"]),
    (_truncated, 7, ["model-00002-of-00003.safetensors", "safetensors"]),
    (_other_shape, 7, ["blk.0.ffn"]),
    (_other_heads, 7, []),
    (_fewer_layers, 7, ["model.layers.1."]),
    (_more_layers, 7, ["blk.2."]),
    (_extra_tensor, 7, ["score.weight"]),
    (_no_output, 7, ["lm_head.weight"]),
    (_wrong_dtype, 5, ["I64", "q_proj"]),
    (_unknown_architecture, 5, ["PerceiverForCausalLM"]),
    (_unknown_activation, 5, ["hidden_act", "gelu"]),
    (_unknown_rope, 5, ["spiral"]),
    (_softcapping, 5, ["attn_logit_softcapping"]),
    (_two_tokenizers, 7, ["contradict"]),
    (_pickle, 5, ["pickles"]),
    (_no_config, 3, ["config.json"]),
    (_config_is_a_list, 7, ["config.json"]),
    (_index_leaves_the_folder, 7, ["outside"]),
    (_index_names_more, 7, ["model.layers.7.mlp.up_proj.weight"]),
    (_no_tokenizer, 7, []),
]


@pytest.mark.parametrize(("spoil", "code", "words"), BAD, ids=[row[0].__name__[1:] for row in BAD])
def test_a_bad_checkpoint_gets_one_error_and_writes_nothing(
    checkpoint: Path, out: Path, spoil: Any, code: int, words: list[str], convert_here: Callable[..., Output]
) -> None:
    spoil(checkpoint)
    refused(convert_here(checkpoint, "-o", out), code, *words)
    assert sorted(path.name for path in out.parent.iterdir()) == ["tiny"]


def test_values_that_are_no_numbers_are_counted(tmp_path: Path, out: Path, convert_here: Callable[..., Output]) -> None:
    broken = np.ones((64, 64), np.float32)
    broken[3, :5] = np.nan
    broken[4, 0] = np.inf
    folder = write_tiny_checkpoint(tmp_path / "tiny", tensors={"model.layers.1.self_attn.o_proj.weight": bf16(broken)})
    done = convert_here(folder, "-o", out)
    assert done.exit_code == 0
    assert "blk.1.attn_output.weight has 6 values that are infinite or not a number" in done.stderr


def test_values_too_large_for_f16_are_said(tmp_path: Path, out: Path, convert_here: Callable[..., Output]) -> None:
    large = np.full((64, 64), 70000, np.float32)
    folder = write_tiny_checkpoint(tmp_path / "tiny", tensors={"model.layers.1.self_attn.o_proj.weight": bf16(large)})
    done = convert_here(folder, "-o", out, "--type", "f16")
    assert "blk.1.attn_output.weight has 4096 values too large for the type asked for" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["--type", "q9"], 2, "q9"),
        (["-o", "model.bin"], 2, ".gguf"),
        (["-o", "nowhere/model.gguf"], 2, "nowhere"),
        (["--split-max-size", "much"], 2, "much"),
        (["--split-max-size", "5KB"], 2, "too small"),
    ],
)
def test_wrong_arguments_are_refused(
    checkpoint: Path, args: list[str], code: int, word: str, convert_here: Callable[..., Output]
) -> None:
    refused(convert_here(checkpoint, *args), code, word)


def test_a_model_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    refused(convert(tmp_path / "m.gguf"), 2, "no folder")
    refused(convert(tmp_path / "nothing.gguf"), 3, "no such folder")


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of some 200 MB, so that a conversion can be met in the middle."""
    config = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6}
    return write_tiny_checkpoint(tmp_path_factory.mktemp("large") / "large", config=config)


@pytest.mark.slow
def test_a_killed_conversion_goes_on_and_comes_to_the_same_bytes(large: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole.gguf", tmp_path / "resumed.gguf"
    assert convert(large, "-o", whole, "--type", "f32").exit_code == 0
    incomplete = resumed.with_name("resumed.gguf.incomplete")
    for moment in (0.3, 0.6, 0.9):
        process = start(["-m", "owm", "convert", large, "-o", resumed, "--type", "f32"])
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            written = incomplete.stat().st_blocks * 512 if incomplete.exists() else 0
            if written > moment * whole.stat().st_size:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        finish(process)
    done = convert(large, "-o", resumed, "--type", "f32")
    assert done.exit_code == 0, done.stderr
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed.gguf", "whole.gguf"]


@pytest.mark.slow
def test_a_changed_checkpoint_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    """The journal of a conversion that was killed counts only for the very same files."""
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    out = tmp_path / "out.gguf"
    assert convert(folder, "-o", out).exit_code == 0
    old = out.read_bytes()
    out.rename(tmp_path / "out.gguf.incomplete")
    (tmp_path / "out.gguf.incomplete.journal").write_text(json.dumps({"plan": "0" * 64}) + "\n0\n1\n2\n")
    write_tiny_checkpoint(folder, seed=1)
    assert convert(folder, "-o", out).exit_code == 0
    assert out.read_bytes() != old
    fresh = tmp_path / "fresh.gguf"
    assert convert(folder, "-o", fresh).exit_code == 0
    assert out.read_bytes() == fresh.read_bytes()


def test_a_tensor_file_that_lies_about_its_length_is_refused(tmp_path: Path, out: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    content = pack({"a": np.ones(4, np.float32)})
    (folder / "model.safetensors").write_bytes(content[:8].replace(content[:1], b"\xff") + content[8:])
    refused(convert(folder, "-o", out), 7, "model.safetensors")
