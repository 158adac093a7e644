"""`owm doctor`: what it says of this machine, in words and in JSON; the Hub only when asked; and what stays private."""

import json
import os
import shutil
from pathlib import Path

import pytest

from owm.hardware import bandwidth, matmul, seclusion
from owm.library import diagnosing
from support.hub_server import HubServer
from support.run import run, run_here
from support.tiny_gguf import write_tiny_gguf

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes no time."""
    monkeypatch.setattr(bandwidth, "measure", lambda *, n_threads: 2.5e10)
    monkeypatch.setattr(matmul, "measure", lambda type_name, *, n_threads: 1e11)


@pytest.mark.usefixtures("quick")
def test_the_machine_the_build_and_the_places_are_shown(capsys: Capture) -> None:
    done = run_here(capsys, "doctor")
    assert (done.exit_code, done.stderr) == (0, "")
    names = [line.split("  ")[0] for line in done.splitlines() if not line.startswith(" ")]
    assert names == [
        "processor", "memory", "matrices", "GPU", "versions", "build", "models", "store", "snapshots", "Hub cache",
        "Hub", "terminal",
    ]  # fmt: skip
    assert "; 25.0 GB/s measured" in done
    assert "Hub        not asked: `--hub` asks" in done.splitlines()
    assert os.environ["OWM_HOME"] in done


@pytest.mark.usefixtures("quick")
def test_the_json_has_the_keys_that_programs_rely_on(capsys: Capture) -> None:
    found = run_here(capsys, "doctor", "--json").json
    assert set(found) == {
        "machine", "cpu", "memory", "flops", "gpus", "versions", "places", "n_models", "hub", "problems", "terminal",
    }  # fmt: skip
    assert set(found["cpu"]) == {
        "name", "n_physical", "n_performance", "n_allowed", "quota", "n_used", "features_used", "features_missing",
        "rebuild",
    }  # fmt: skip
    assert found["memory"]["bytes_per_second"] == 2.5e10
    assert found["flops"] == {"f16": 1e11, "q4_k": 1e11}
    assert found["versions"]["llama-cpp-python"]
    assert [set(place) for place in found["places"]] == [{"name", "path", "size_bytes", "free_bytes"}] * 3
    assert found["hub"] == {"is_reachable": None, "reason": "not asked"}
    assert set(found["terminal"]) == {"is_terminal", "columns", "lines", "colours", "is_utf8", "can_edit"}


@pytest.mark.usefixtures("quick")
def test_features_that_the_build_leaves_unused_come_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from owm.hardware import machine

    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"amx_int8", "sme"}))
    done = run_here(capsys, "doctor")
    assert "the build does not use AMX_INT8, SME, which this processor has" in done
    found = run_here(capsys, "doctor", "--json").json
    assert found["cpu"]["features_missing"] == ["AMX_INT8", "SME"]
    line = found["cpu"]["rebuild"]
    assert line.startswith('CMAKE_ARGS="-DGGML_NATIVE=on" ')
    assert line.endswith(f"llama-cpp-python=={found['versions']['llama-cpp-python']}")


@pytest.mark.usefixtures("quick")
def test_a_gpu_that_the_build_cannot_use_comes_with_the_line_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from owm.hardware import gpus

    folder = tmp_path / "0000:01:00.0"
    folder.mkdir()
    (folder / "information").write_text("Model: NVIDIA Test\n")
    monkeypatch.setattr(gpus, "_NVIDIA", tmp_path)
    done = run_here(capsys, "doctor")
    assert "NVIDIA Test, which this build of llama.cpp cannot use" in done
    assert 'with the CUDA toolkit installed, this lets it: CMAKE_ARGS="-DGGML_CUDA=on" ' in done


@pytest.mark.usefixtures("quick")
def test_what_is_stored_is_counted_once_however_many_names_it_has(capsys: Capture) -> None:
    home = Path(os.environ["OWM_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "models").mkdir()
    (home / "models" / "file").write_bytes(b"x" * 5000)
    os.link(home / "models" / "file", home / "models" / "again")
    (home / "models" / "link").symlink_to(home / "models" / "file")
    places = {place["name"]: place for place in run_here(capsys, "doctor", "--json").json["places"]}
    assert 5000 <= places["store"]["size_bytes"] < 9000
    assert places["store"]["free_bytes"] == pytest.approx(shutil.disk_usage(home).free, rel=0.05)


@pytest.mark.usefixtures("quick")
def test_the_hub_is_asked_with_one_request_when_it_is_wanted(hub: HubServer, capsys: Capture) -> None:
    before = len(hub.requests)
    run_here(capsys, "doctor")
    assert len(hub.requests) == before
    found = run_here(capsys, "doctor", "--hub", "--json").json["hub"]
    assert found["is_reachable"] is True
    assert len(hub.requests) == before + 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["OWM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_the_hub_is_not_asked(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", name == "HF_HUB_OFFLINE")
    done = run_here(capsys, "doctor", "--hub")
    assert f"not asked: {name} is set" in done


@pytest.mark.usefixtures("quick")
def test_a_hub_that_does_not_answer_is_said_to_be_out_of_reach(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = run_here(capsys, "doctor", "--hub", "--json").json["hub"]
    assert found["is_reachable"] is False
    assert found["reason"].startswith("127.0.0.1:9 cannot be reached")


@pytest.mark.slow
def test_a_real_answer_without_a_way_to_the_network_is_shown(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    done = run(["-m", "owm", "doctor", "--privacy", str(model)])
    assert done.exit_code == 0, done.stderr
    assert done.splitlines()[0] == f"{model} answered with no way to the network:"
    assert done.splitlines()[1] == "  in `owm run`, `owm chat`, `owm batch`, `owm bench`"
    assert done.splitlines()[-1] == "a program that does connect was stopped in the same way just before"


@pytest.mark.slow
def test_what_was_shown_is_told_to_programs(tmp_path: Path, capsys: Capture) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf", n_blocks=1)
    shown = run_here(capsys, "doctor", "--privacy", str(model), "--json").json
    assert shown["is_shown"] is True
    assert shown["commands"] == ["run", "chat", "batch", "bench"]
    assert shown["answer"]
    assert shown["means"]


def test_a_program_that_does_open_a_socket_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    original = seclusion.run

    def with_talk(program: list[str], means: object, **given: object) -> seclusion.Secluded:
        talks = "import socket; socket.socket(); print('an answer')"
        return original([program[0], "-I", "-c", talks] if "owm" in program else program, means)  # type: ignore[arg-type]

    monkeypatch.setattr(diagnosing.seclusion, "run", with_talk)
    monkeypatch.setattr(diagnosing.seclusion, "available", lambda: ("filter",))
    done = run_here(capsys, "doctor", "--privacy", str(model))
    assert done.exit_code == 1
    assert "a network socket was opened, and the kernel ended it there" in done
    assert json.loads(run_here(capsys, "doctor", "--privacy", str(model), "--json"))["is_shown"] is False


def test_where_nothing_can_be_shut_in_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(seclusion, "available", lambda: ())
    done = run_here(capsys, "doctor", "--privacy", str(model))
    assert done.exit_code == 5
    assert "so nothing is shown" in done.stderr


def test_privacy_needs_a_model(capsys: Capture) -> None:
    done = run_here(capsys, "doctor", "--privacy")
    assert done.exit_code == 3
    assert "hint: `owm pull smollm2` fetches a small one" in done.stderr


def test_a_model_without_privacy_is_refused(capsys: Capture) -> None:
    assert run_here(capsys, "doctor", "smollm2").exit_code == 2
