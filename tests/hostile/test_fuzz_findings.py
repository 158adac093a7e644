"""What `scripts/fuzz` has found, one test a fault: cases that once ended in a traceback, or took gigabytes."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.batch import record_line
from owm.batch.journal import Journal
from owm.batch.ledger import Ledger
from owm.convert import peft
from owm.convert.conversion import plan_folder
from owm.engine import context
from owm.engine.constrain import Constraint
from owm.errors import MAX_CHARS, Damaged, MalformedFile, OwmError, SourceUnreachable, UsageError
from owm.fit import work
from owm.formats.gguf import Header, read_header
from owm.formats.sealed_lines import seal
from owm.store import manifest, refs
from owm.store.sources import modelscope
from owm.store.sources.asking import Answer
from owm.store.sources.credentials import credentials_for
from owm.store.sources.hub import HubSource
from owm.store.sources.hub_client import translated
from owm.store.sources.modelscope import ModelScopeSource
from support.hub_server import HubServer, Repo
from support.journals import record
from support.packed_gguf import F32, STRING, U32, U64, array, key, pack, tensor
from support.tiny_checkpoint import write_tiny_checkpoint

LLAMA = key("general.architecture", STRING, "llama")
LAYERS = key("llama.block_count", U32, 1)
DATA = bytes(32)


def header_of(path: Path, *keys: bytes, tensors: tuple[bytes, ...] = (), data: bytes = DATA) -> Header:
    path.write_bytes(pack(keys, tensors, data if tensors else b""))
    return read_header(path)


# -- headers of model files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [STRING, F32])
def test_numbers_of_layers_that_are_none(tmp_path: Path, kind: int) -> None:
    items = ["four"] if kind == STRING else [float("nan")]
    heads = array("llama.attention.head_count", kind, items)
    header = header_of(tmp_path / "m.gguf", LLAMA, LAYERS, heads, tensors=(tensor("blk.0.attn_q.weight", (8,), 0, 0),))
    assert header.integers("attention.head_count", 1) is None
    assert context.kv_bytes_per_token(header) == 0
    assert work.work_of([header]).layers == ()


def test_a_tensor_without_dimensions_has_work_of_its_own(tmp_path: Path) -> None:
    for name in ("blk.0.attn_q.bias", "token_embd.weight"):
        header = header_of(tmp_path / "m.gguf", LLAMA, LAYERS, tensors=(tensor(name, (), 0, 0),))
        assert work.work_of([header]).n_bytes <= 4


def test_attention_that_is_of_no_layer(tmp_path: Path) -> None:
    only_predicting = key("llama.nextn_predict_layers", U32, 1)
    attention = tensor("x.attn_q.weight", (8,), 0, 0)
    header = header_of(tmp_path / "m.gguf", LLAMA, LAYERS, only_predicting, tensors=(attention,))
    assert work.work_of([header]).layers == ()


def test_values_are_read_without_the_gap_before_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(pack([LLAMA, key("general.alignment", U32, 1 << 20)]))
    header = read_header(path)
    assert header.data_offset == 1 << 20
    assert header.raw_values()["general.alignment"] == (4).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")


def test_a_copy_would_begin_with_gigabytes_of_zeros(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(pack([LLAMA, key("general.alignment", U32, 1 << 31)]))
    with pytest.raises(MalformedFile, match="its alignment is 2147483648, at most 1048576 can be"):
        read_header(path)


def test_layers_of_a_file_that_names_no_architecture(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(pack([key("unknown.block_count", U32, 1 << 31)]))
    with pytest.raises(MalformedFile, match="2147483648 layers"):
        read_header(path)


@pytest.mark.parametrize("count", [(1 << 32) + 1, 1 << 63])
def test_layers_of_which_llama_cpp_would_see_one(tmp_path: Path, count: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(pack([LLAMA, key("llama.block_count", U64, count)]))
    with pytest.raises(MalformedFile, match=f"its block_count is {count}, which is more than 32 bits hold"):
        read_header(path)


# -- manifests of stored models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("files", 0, "path"), "a\0b.gguf"),
        (("files", 0, "path"), "a\ud800.gguf"),
        (("files", 0, "size_bytes"), int("9" * 4300)),
        (("files", 0, "mtime_ns"), 1 << 64),
        (("facts", "n_params"), -(1 << 64)),
        (("facts", "n_ctx_train"), 1 << 64),
    ],
)
def test_a_manifest_with_what_no_file_has(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    file = manifest.FileRecord("a.gguf", "owm", 10, "0" * 64, "model", 7)
    facts = manifest.ModelFacts("llama", "Tiny", 1000, 512, "mit")
    sound = manifest.Manifest("o/r", "hub", "o/r", "Q8_0", "main", "a" * 40, (file,), "mit", facts, "2025-01-01")
    raw = json.loads(manifest.dump(sound))
    holder = raw
    for part in place[:-1]:
        holder = holder[part]
    holder[place[-1]] = value
    assert manifest.parse(manifest.dump(sound), tmp_path / "manifest.json") == sound
    with pytest.raises(Damaged, match=r"cannot be|surrogates not allowed"):
        manifest.parse(json.dumps(raw), tmp_path / "manifest.json")


# -- journals of batches --------------------------------------------------------------------------------------------


ANSWER: dict[str, Any] = {"text": "a", "finish_reason": "stop", "usage": {"total_tokens": 3}}
TOP = {"token": "a", "logprob": -0.5}
UNSOUND: dict[str, dict[str, Any]] = {
    "no text": {"answer": {"finish_reason": "stop", "usage": {}}},
    "a text that is none": {"answer": ANSWER | {"text": ["a"]}},
    "no finish reason": {"answer": {"text": "a", "usage": {}}},
    "no usage": {"answer": {"text": "a", "finish_reason": "stop"}},
    "a usage that is none": {"answer": ANSWER | {"usage": 3}},
    "a count that is none": {"answer": ANSWER | {"usage": {"total_tokens": "3"}}},
    "a thought that is none": {"answer": ANSWER | {"reasoning": 3}},
    "probabilities that are none": {"answer": ANSWER | {"logprobs": "abc"}},
    "a token without a name": {"answer": ANSWER | {"logprobs": [{"logprob": -1, "top_logprobs": []}]}},
    "a token without others": {"answer": ANSWER | {"logprobs": [TOP]}},
    "another token without a name": {"answer": ANSWER | {"logprobs": [TOP | {"top_logprobs": [{"logprob": 1}]}]}},
    "a digest that is none": {"digest": "Grüße"},
    "a failure that is none": {"failure": ""},
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_sealed_record_that_no_output_can_be_made_of(tmp_path: Path, name: str) -> None:
    members = json.loads(record_line.record_line(record(1)))
    del members["crc32"]
    path = tmp_path / "out.jsonl.journal"
    sound = record_line.record_line(record(2))
    path.write_bytes(record_line.HEADER + seal(members | UNSOUND[name]) + sound)
    with Journal.open(path) as journal:
        assert [each.number for _, each in journal.scan()] == [2]
        assert journal.n_damaged == 1
        assert Ledger(journal, ["m"]).n_done("m") == 1


def test_a_record_as_a_batch_writes_it_is_sound() -> None:
    logprobs = [{**TOP, "bytes": [97], "top_logprobs": [{**TOP, "bytes": [97]}]}]
    whole = replace(record(1), answer=ANSWER | {"reasoning": None, "seed": 4, "logprobs": logprobs, "is_cut": True})
    assert record_line.record_of(record_line.record_line(whole)[:-1]) == whole


# -- what others answer, and what is kept ------------------------------------------------------------------------------


def test_an_error_does_not_quote_a_whole_file() -> None:
    said = str(OwmError("x" * 10_000_000))
    assert len(said) == MAX_CHARS + 1
    assert said.endswith("…")


@pytest.mark.parametrize("auth", ["\udfff", "é", "a", "!!!!", base64.b64encode(b"\xff:\xff").decode()])
def test_a_password_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"ghcr.io": {"auth": auth}}}))
    assert credentials_for("ghcr.io").basic is None


def test_a_password_with_half_a_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"ghcr.io": {"username": "u", "password": "\udfff"}}}))
    assert credentials_for("ghcr.io").basic == "Basic " + base64.b64encode(b"u:\xed\xbf\xbf").decode()


def test_files_of_modelscope_of_which_not_the_same_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        {"Path": "m-Q8_0.gguf", "Size": 9, "Sha256": "a" * 64},
        {"Path": "m-Q8_0.gguf", "Size": 9, "Sha256": None},
    ]
    body = json.dumps({"Data": {"Files": listed}}).encode()
    monkeypatch.setattr(modelscope, "ask", lambda *_, **__: Answer(200, {}, body, "example.test"))
    offer = ModelScopeSource().offer(refs.parse("modelscope:o/r"), deadline=5)
    assert offer.commit is not None
    assert len(offer.commit) == 40


LIES: dict[str, dict[str, Any]] = {
    "a size that is a text": {"sizes": {"m-Q8_0.gguf": "9"}},
    "a size below nothing": {"sizes": {"m-Q8_0.gguf": -1}},
    "a hash that is none": {"sha256": {"m-Q8_0.gguf": "z"}},
    "a name that is a list": {"facts": {"id": ["o/r"]}},
    "a commit that is a number": {"commit": 5},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_listing_of_the_hub_that_says_what_cannot_be(hub: HubServer, tmp_path: Path, lie: str) -> None:
    hub.add(Repo("o/r", {"m-Q8_0.gguf": b"GGUF"}, **LIES[lie]))
    with pytest.raises(SourceUnreachable, match="does not answer like a Hub"):
        HubSource(tmp_path).offer(refs.parse("o/r"), deadline=5)


def test_an_answer_of_the_hub_that_nests_without_end() -> None:
    with pytest.raises(SourceUnreachable, match="does not answer like a Hub"), translated(refs.parse("o/r")):
        json.loads("[" * 100_000)


@pytest.mark.parametrize("keyword", ["minimum", "multipleOf", "maxLength"])
def test_a_bound_of_a_schema_that_no_double_holds(keyword: str) -> None:
    with pytest.raises(UsageError, match=f"`{keyword}` must be a"):
        Constraint.json_schema({"type": "integer", keyword: 10**400})


@pytest.mark.parametrize("name", ["r", "lora_alpha"])
def test_a_strength_of_an_adapter_that_no_double_holds(name: str) -> None:
    with pytest.raises(Damaged, match=f"{name} should be a number above 0"):
        peft.Settings.read({"use_rslora": True, "r": 8, "lora_alpha": 16, name: 10**400})


def test_a_vocabulary_that_no_tensor_has_rows_for(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 1_000_001}))
    with pytest.raises(Damaged, match="vocab_size is 1000001, and no tensor has more than"):
        plan_folder(folder)
