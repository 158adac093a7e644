"""The gate before llama.cpp: when a model is tried, what is remembered of it, and what is said of one that fails."""

import ast
import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from owm.errors import EngineError, MalformedFile, OwmError, Unsupported
from owm.library import gate, load, quantizing
from owm.library.gate import admit, admit_files
from owm.library.working import runnable
from owm.native import guard, installed
from owm.native.guard import Trial
from owm.paths import owm_home
from owm.store.local import Store
from owm.store.model import StoredModel, at_path
from owm.store.refs import parse
from owm.store.verifying import verify
from support.hostile_gguf import blind_reader, write_contradictory_rope
from support.run import ROOT
from support.stored import put_model
from support.tiny_adapter import factors, write_adapter
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf


@pytest.fixture(autouse=True)
def no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWM_TRUST", raising=False)
    blind_reader(monkeypatch)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that are tried from now on; they are, for real."""
    found: list[Path] = []
    real = guard.Child.trial

    def counted(self: guard.Child, path: Path, **wanted: Any) -> Trial:
        found.append(path)
        return real(self, path, **wanted)

    monkeypatch.setattr(guard.Child, "trial", counted)
    return found


def model_at(path: Path) -> StoredModel:
    return at_path(parse(str(path)))


def kept() -> list[Path]:
    folder = owm_home() / "tried"
    return sorted(folder.iterdir()) if folder.is_dir() else []


# -- when a model is tried ---------------------------------------------------------------------------------------------


def test_a_model_is_tried_once(tmp_path: Path, trials: list[Path]) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    for _ in range(3):
        admit(model_at(path))
    assert trials == [path]
    assert len(kept()) == 1


def test_what_was_tried_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_at(write_tiny_gguf(tmp_path / "m.gguf"))
    admit(model)
    monkeypatch.setattr(guard, "Child", None)
    admit(model)


def test_a_stored_model_is_known_by_its_content(store: Store, trials: list[Path]) -> None:
    for name in ("o/first", "o/second"):
        put_model(store, name, "F32", content=tiny_gguf())
    verify(store.models(), store)  # which notes the times of what is whole
    first, second = store.models()
    admit(first)
    admit(second)
    assert trials == [first.path]


def test_a_stored_file_that_changed_is_tried_again(store: Store, trials: list[Path]) -> None:
    folder = put_model(store, "o/r", "F32", content=tiny_gguf())
    model = store.at(folder)
    assert model is not None
    admit(model)
    path = model.path
    path.write_bytes(tiny_gguf(seed=1))
    os.utime(path, ns=(1, 1))
    admit(model)
    assert trials == [path, path]


@pytest.mark.parametrize("change", ["content", "time", "place"])
def test_a_file_that_changed_is_tried_again(change: str, tmp_path: Path, trials: list[Path]) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    admit(model_at(path))
    if change == "content":
        path.write_bytes(tiny_gguf(n_ctx_train=1024) + bytes(32))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        shutil.copy2(path, tmp_path / "other")
        os.replace(tmp_path / "other", path)
    admit(model_at(path))
    assert trials == [path, path]


def test_another_build_of_llama_cpp_tries_again(
    tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    admit(model_at(path))
    monkeypatch.setattr(gate, "library_stamp", lambda: "another")
    admit(model_at(path))
    admit(model_at(path))
    assert trials == [path, path]
    assert len(kept()) == 1


def test_a_build_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = installed.library_stamp()
    assert installed.library_stamp() == first
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    (tmp_path / "libllama.so").write_bytes(b"a build")
    second = installed.library_stamp()
    (tmp_path / "libllama.so").write_bytes(b"another build")
    assert len({first, second, installed.library_stamp()}) == 3


def test_a_model_changed_while_it_is_tried_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")

    def change(self: guard.Child, path: Path, **wanted: Any) -> Trial:
        os.utime(path, ns=(1, 1))
        return Trial(None)

    monkeypatch.setattr(guard.Child, "trial", change)
    admit(model_at(path))
    assert not kept()


def test_an_adapter_is_tried_with_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[Path]] = []

    def passes(self: guard.Child, path: Path, **wanted: Any) -> Trial:
        seen.append(tuple(wanted["adapters"]))
        return Trial(None)

    monkeypatch.setattr(guard.Child, "trial", passes)
    model = model_at(write_tiny_gguf(tmp_path / "m.gguf"))
    a, b = factors("q", 64, 64)
    pair = {"blk.0.attn_q.weight.lora_a": a, "blk.0.attn_q.weight.lora_b": b}
    adapter = write_adapter(tmp_path / "a.gguf", pair)
    for adapters in ((), (adapter,), (adapter,), ()):
        admit(model, adapters=adapters)
    assert seen == [(), (adapter,)]


@pytest.mark.parametrize("said", ["1", "yes", "--trust"])
def test_trust_tries_nothing(said: str, tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWM_TRUST", said)
    admit_files([write_contradictory_rope(tmp_path / "m.gguf")])
    assert not trials
    assert not kept()


@pytest.mark.parametrize("said", ["", "0", "no", "False"])
def test_no_trust_is_no_trust(said: str, tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWM_TRUST", said)
    admit_files([write_tiny_gguf(tmp_path / "m.gguf")])
    assert len(trials) == 1


def test_a_long_trial_says_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, has_told = [], threading.Event()

    def tell(message: str) -> None:
        told.append(message)
        has_told.set()

    monkeypatch.setattr(gate, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(guard.Child, "trial", lambda *_, **__: Trial(None if has_told.wait(30) else "not told"))
    admit_files([write_tiny_gguf(tmp_path / "m.gguf")], tell=tell)
    assert told == ["trying m.gguf in a process of its own before its first use"]


def test_a_short_trial_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gate, "PATIENCE_SECONDS", 600.0)
    admit_files([write_tiny_gguf(tmp_path / "m.gguf")], tell=told.append)
    assert not told
    assert all(thread.finished.is_set() for thread in threading.enumerate() if isinstance(thread, threading.Timer))


def test_our_reader_looks_at_adapters_first(tmp_path: Path, trials: list[Path]) -> None:
    adapter = tmp_path / "a.gguf"
    adapter.write_bytes(b"an adapter")
    with pytest.raises(MalformedFile, match=r"a\.gguf is not a usable GGUF file: it begins with"):
        admit(model_at(write_tiny_gguf(tmp_path / "m.gguf")), adapters=[adapter])
    assert not trials


# -- what is remembered ------------------------------------------------------------------------------------------------


def damage(path: Path, how: str, elsewhere: Path) -> None:
    text = path.read_text()
    verdict = json.loads(text)
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        elsewhere.write_text(text)
        path.symlink_to(elsewhere)
    elif how == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.write_text(
            {
                "empty": "",
                "cut": text[:-9],
                "no JSON": "[" * 5000,
                "newer": json.dumps(verdict | {"version": 2}) + "\n",
                "of another model": json.dumps(verdict | {"model": "0" * 64}) + "\n",
                "failed": json.dumps(verdict | {"result": "failed"}) + "\n",
                "longer": text + " " * 9000,
            }[how]
        )


@pytest.mark.parametrize(
    "how",
    ["empty", "cut", "no JSON", "newer", "of another model", "failed", "longer", "pipe", "folder", "link", "endless"],
)
def test_a_verdict_that_is_not_as_it_was_written_counts_for_nothing(
    how: str, tmp_path: Path, trials: list[Path]
) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    admit(model_at(path))
    (verdict,) = kept()
    damage(verdict, how, tmp_path / "elsewhere")
    admit(model_at(path))
    assert trials == [path, path]


def test_verdicts_are_named_by_content_and_say_no_path(tmp_path: Path) -> None:
    admit_files([write_tiny_gguf(tmp_path / "secret.gguf")])
    (verdict,) = kept()
    assert json.loads(verdict.read_text()).keys() == {"version", "model", "llama.cpp", "result"}
    assert "secret" not in verdict.read_text() + verdict.name


def test_the_oldest_of_many_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_KEPT", 2)
    monkeypatch.setattr(guard.Child, "trial", lambda *_, **__: Trial(None))
    for number in range(4):
        admit_files([write_tiny_gguf(tmp_path / f"{number}.gguf", seed=number)])
        for age, path in enumerate(reversed(kept())):
            os.utime(path, ns=(10**18 + number - age, 10**18 + number - age))
    assert len(kept()) == 2


def test_a_failure_is_not_remembered(tmp_path: Path, trials: list[Path]) -> None:
    path = write_contradictory_rope(tmp_path / "m.gguf")
    for _ in range(2):
        with pytest.raises(MalformedFile):
            admit(model_at(path))
    assert len(trials) == 2
    assert not kept()


# -- what is said of one that fails ------------------------------------------------------------------------------------


def test_an_abort_is_an_error_with_its_cause(tmp_path: Path) -> None:
    path = write_contradictory_rope(tmp_path / "m.gguf")
    with pytest.raises(MalformedFile) as caught:
        admit(model_at(path))
    message = str(caught.value)
    assert message.startswith("m.gguf is not a usable GGUF file: tried in a process of its own, it aborted: qwen2.cpp:")
    assert message.endswith("GGML_ASSERT(n_embd_head == n_rot) failed")
    assert "--trust" in str(caught.value.hint)


def test_our_reader_comes_first(tmp_path: Path, trials: list[Path]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_gguf()[:-1])
    with pytest.raises(MalformedFile, match="it is truncated"):
        admit(model_at(path))
    assert not trials


def test_every_shard_is_read(tmp_path: Path, trials: list[Path]) -> None:
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    first.write_bytes(tiny_gguf())
    second.write_bytes(b"no GGUF")
    with pytest.raises(MalformedFile, match=r"m-00002-of-00002\.gguf is not a usable GGUF file: it begins with"):
        admit(model_at(first))
    assert not trials


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (Trial("it crashed (SIGSEGV)", signal="SIGSEGV"), MalformedFile, "of its own, it crashed (SIGSEGV)"),
        (Trial("it did not come to an end in 9 s"), MalformedFile, "of its own, it did not come to an end in 9 s"),
        (Trial("it aborted: x", signal="SIGKILL"), EngineError, "trying m.gguf was ended from outside (SIGKILL)"),
        (Trial("bad", stage="load"), EngineError, "llama.cpp cannot load m.gguf: bad"),
        (
            Trial("unknown model architecture: 'x'", stage="load"),
            Unsupported,
            "m.gguf: unknown model architecture: 'x'",
        ),
        (Trial("bad", stage="adapter"), EngineError, "llama.cpp cannot load an adapter of m.gguf: bad"),
        (Trial("bad", stage="context"), EngineError, "llama.cpp cannot make a context for m.gguf: bad"),
        (Trial("bad (-1)", stage="decode"), EngineError, "llama.cpp cannot compute with m.gguf: bad (-1)"),
    ],
)
def test_each_end_has_its_own_words(
    found: Trial, kind: type[OwmError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard.Child, "trial", lambda *_, **__: found)
    with pytest.raises(kind) as caught:
        admit_files([write_tiny_gguf(tmp_path / "m.gguf")])
    assert words in str(caught.value)
    assert type(caught.value) is kind


def test_the_log_of_a_refusal_is_there_for_who_asks(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", metadata={"llama.rope.dimension_count": 14})
    with pytest.raises(EngineError, match="invalid n_rot: 14, expected 16") as caught:
        admit(model_at(path))
    assert caught.value.hint == "`--trust --verbose` shows its whole log"


def test_a_file_that_is_gone_is_left_to_who_opens_it(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    model = model_at(path)
    path.unlink()
    admit(model)


# -- where it stands ---------------------------------------------------------------------------------------------------

# Modules that open a model, and where that was admitted before.
DOORS = {
    "owm/library/__init__.py": "itself",
    "owm/library/benchmarking.py": "itself",
    "owm/library/tuning.py": "itself",
    "owm/library/working.py": "runnable, which gives the files",
    "owm/cli/opening.py": "itself",
    "owm/cli/imatrix.py": "find_running",
    "owm/bench/rounds.py": "owm.library.benchmarking.plan, find_running",
    "owm/quality/divergence.py": "find_running, runnable",
}


def test_every_place_that_opens_a_model_is_known() -> None:
    """Whoever adds one has to think of the gate."""
    found = set()
    for path in (ROOT / "owm").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text if "Model(" in text and "owm.engine.model" in text else "")
        imports = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "owm.engine.model"
            and any(name.name == "Model" for name in node.names)
            for node in ast.walk(tree)
        )
        calls = any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Model"
            for node in ast.walk(tree)
        )
        if imports and calls:
            found.add(path.relative_to(ROOT).as_posix())
    assert found == set(DOORS)


def test_the_library_refuses_what_llama_cpp_does_not_survive(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match="GGML_ASSERT"):
        load(write_contradictory_rope(tmp_path / "m.gguf"))


def test_a_conversion_that_is_to_run_is_tried(tmp_path: Path, store: Store, trials: list[Path]) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    with runnable(quantizing.of_folder(folder), store) as files:
        assert trials == files
