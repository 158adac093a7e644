"""`owm quantize`: checkpoints, repos and model files in, any type out; what is refused; interrupted; on a full disk."""

import io
import json
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.formats.gguf import Header, read_header
from owm.formats.imatrix import Entry, Imatrix, write_imatrix
from owm.pipeline.model_file import open_model_file
from owm.pipeline.rows import read_all
from support.hub_server import HubServer, Repo
from support.run import Output, finish, run, run_here, start
from support.tiny_checkpoint import files_of, write_tiny_checkpoint
from support.tiny_gguf import write_tiny_gguf

Owm = Callable[..., Output]


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owm:
    """Run a command in this process, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))

    def called(*args: str | os.PathLike[str]) -> Output:
        return run_here(capsys, *args)

    return called


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file in F32 with rows of 256, which every type divides."""
    return write_tiny_gguf(tmp_path / "tiny-F32.gguf", n_embd=256)


def done(output: Output) -> Output:
    assert output.exit_code == 0, output.stderr
    return output


def refused(output: Output, code: int, *words: str) -> None:
    assert output.exit_code == code, output.stderr
    assert output == ""
    errors = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output.stderr
    for word in words:
        assert word in errors[0]


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type_name for tensor in read_header(path).tensors}


def tensors(*paths: Path) -> dict[str, tuple[str, bytes]]:
    plan = open_model_file(paths)
    return {tensor.name: (tensor.type_name, read_all(tensor.rows).tobytes()) for tensor in plan.tensors}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def imatrix_for(header: Header, path: Path) -> Path:
    """Write an importance matrix of random numbers for all blocks' matrices."""
    random = np.random.default_rng(0)
    entries = {
        tensor.name: Entry(random.random((1, tensor.shape[0])).astype(np.float32), np.array([512], np.int64))
        for tensor in header.tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1
    }
    write_imatrix(Imatrix(entries, ("prose.txt",), 1, 512), path)
    return path


# -- sources and places ------------------------------------------------------------------------------------------------


def test_a_checkpoint_becomes_a_stored_model_that_answers(tmp_path: Path) -> None:
    """As a process, with nothing but the folder's name."""
    folder = write_tiny_checkpoint(tmp_path / "My Tiny", n_shards=2)
    made = done(run(["-m", "owm", "quantize", folder]))
    path = Path(made.strip())
    assert path.name == "my-tiny-Q4_K_M.gguf"
    header = read_header(path)
    assert (header.architecture, header.file_type) == ("llama", "Q4_K_M")
    assert header.metadata["general.license"] == "apache-2.0"
    assert "stored my-tiny:Q4_K_M" in made.stderr
    assert "quantizing" in made.stderr
    done(run(["-m", "owm", "run", "my-tiny:Q4_K_M", "the tin", "-n", "3"]))


def test_the_store_knows_what_owm_has_made(owm: Owm, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    first = done(owm("quantize", "tiny", "Q8_0", "q4_0", "--json")).json
    assert [each["quant"] for each in first] == ["Q8_0", "Q4_0"]
    listed = done(owm("list", "--json")).json
    assert sorted(each["name"] for each in listed) == ["tiny:Q4_0", "tiny:Q8_0"]
    assert owm("verify").exit_code == 0
    path = Path(done(owm("path", "local:tiny:Q8_0")).strip())
    made = json.loads((path.parent / "manifest.json").read_text())["made_from"]
    assert made["path"] == str(tmp_path / "tiny")
    assert made["type"] == "Q8_0"
    assert made["tensor_types"]["blk.0.attn_q.weight"] == "Q8_0"
    before = path.stat().st_mtime_ns
    done(owm("quantize", "tiny", "Q8_0"))
    assert path.stat().st_mtime_ns == before  # made in the same way: not made again
    write_tiny_checkpoint(tmp_path / "tiny", seed=1)
    done(owm("quantize", "tiny", "Q8_0"))
    assert path.stat().st_mtime_ns != before
    # A stored model of the user's is a source too.
    done(owm("quantize", "local:tiny:Q8_0", "Q4_0", "--allow-requantize", "-o", "again.gguf"))
    assert types(tmp_path / "again.gguf")["blk.0.attn_q.weight"] == "Q4_0"


def test_a_repo_is_read_once_for_all_its_types(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("acme/tiny", files_of(n_shards=2)))
    done(owm("quantize", "acme/tiny", "Q4_K_M", "Q8_0"))
    listed = done(owm("list", "--json")).json
    assert sorted(each["name"] for each in listed) == ["acme/tiny:Q4_K_M", "acme/tiny:Q8_0"]
    fetched = len(hub.transfers("safetensors"))
    done(owm("quantize", "acme/tiny", "Q6_K"))
    assert len(hub.transfers("safetensors")) == fetched
    answer = done(owm("run", "acme/tiny:Q6_K", "the tin", "-n", "2", "--json")).json
    assert answer["text"] is not None


def test_all_sources_of_the_same_weights_come_to_the_same_tensors(owm: Owm, tmp_path: Path) -> None:
    """Safetensors, a model file, and its parts; one type or several at once."""
    write_tiny_checkpoint(tmp_path / "tiny", n_shards=2)
    done(owm("convert", "tiny", "-o", "tiny-BF16.gguf"))
    done(owm("split", "tiny-BF16.gguf", "--max-tensors", "8"))
    (tmp_path / "out").mkdir()
    made = done(owm("quantize", "tiny", "Q4_K_M", "Q8_0", "F16", "-o", "out"))
    assert made.splitlines() == [f"out/tiny-{name}.gguf" for name in ("Q4_K_M", "Q8_0", "F16")]
    done(owm("quantize", "tiny-BF16.gguf", "Q4_K_M", "-o", "whole.gguf"))
    done(owm("quantize", min(tmp_path.glob("tiny-BF16-00001-*")), "Q4_K_M", "-o", "parts.gguf"))
    wanted = tensors(tmp_path / "out" / "tiny-Q4_K_M.gguf")
    assert tensors(tmp_path / "whole.gguf") == wanted
    assert tensors(tmp_path / "parts.gguf") == wanted
    assert "split.count" not in read_header(tmp_path / "parts.gguf").metadata
    assert {kind for kind, _ in tensors(tmp_path / "out" / "tiny-F16.gguf").values()} == {"F16", "F32"}
    assert not list(tmp_path.rglob("*.incomplete*"))


def test_a_name_says_the_source_and_the_type(owm: Owm, model: Path, tmp_path: Path) -> None:
    assert done(owm("quantize", model, "q8_0", "-o", ".")).strip() == "tiny-Q8_0.gguf"
    record = done(owm("quantize", model, "Q8_0", "-o", "x.gguf", "--json")).json[0]
    assert record["files"][0]["size_bytes"] == (tmp_path / "x.gguf").stat().st_size
    assert len(record["files"][0]["sha256"]) == 64
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "tiny-Q8_0.gguf").read_bytes()


def test_no_more_memory_than_allowed_comes_to_the_same_bytes(owm: Owm, model: Path, tmp_path: Path) -> None:
    done(owm("quantize", model, "Q4_K_M", "-o", "a.gguf"))
    done(owm("quantize", model, "Q4_K_M", "-o", "b.gguf", "--max-memory", "16MiB", "-t", "1"))
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


# -- recipes and what changes them -------------------------------------------------------------------------------------


def test_a_dry_run_shows_every_tensor_and_writes_nothing(owm: Owm, model: Path, tmp_path: Path) -> None:
    before = names(tmp_path)
    told = done(owm("quantize", model, "Q4_K_M", "Q8_0", "--dry-run", "--json")).json
    assert [each["label"] for each in told["types"]] == ["Q4_K_M", "Q8_0"]
    first = told["types"][0]
    assert set(first["tensors"][0]) == {"name", "from", "to", "shape", "size_bytes", "reason"}
    assert first["size_bytes"] > sum(tensor["size_bytes"] for tensor in first["tensors"])
    assert told["disk_bytes"] == sum(each["size_bytes"] for each in told["types"])
    assert told["estimated_seconds"] >= 0
    text = done(owm("quantize", model, "Q4_K_M", "--dry-run"))
    assert "blk.1.ffn_down.weight" in text
    assert "Q6_K" in text
    assert "bits per weight" in text.stderr
    assert "would write" in text.stderr
    assert names(tmp_path) == before
    made = done(owm("quantize", model, "Q4_K_M", "-o", "x.gguf", "--json")).json[0]
    assert made["files"][0]["size_bytes"] == first["size_bytes"]
    assert types(tmp_path / "x.gguf") == {tensor["name"]: tensor["to"] for tensor in first["tensors"]}


def test_a_type_that_rows_do_not_divide_falls_back_and_says_so(owm: Owm, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "narrow.gguf")
    told = done(owm("quantize", "narrow.gguf", "Q4_K_M", "--dry-run", "--json")).json["types"][0]
    by_name = {tensor["name"]: tensor for tensor in told["tensors"]}
    assert by_name["blk.0.attn_q.weight"]["to"] == "Q5_0"
    assert by_name["blk.0.attn_q.weight"]["reason"].startswith("fallback from ")
    assert told["n_fallbacks"] > 0
    assert "tensors fall back" in done(owm("quantize", "narrow.gguf", "Q4_K_M", "--dry-run")).stderr


def test_options_change_the_recipe(owm: Owm, model: Path, tmp_path: Path) -> None:
    (tmp_path / "types.txt").write_text("# the attention\nattn_[qk]=q8_0\n\nffn_up=Q3_K\n")
    options = ["--tensor-type", r"blk\.0\.attn_q=bf16", "--tensor-type-file", "types.txt"]
    options += ["--output-type", "q5_0", "--embedding-type", "f16", "--prune-layers", "1"]
    done(owm("quantize", model, "Q4_K_S", "-o", "x.gguf", *options))
    found = types(tmp_path / "x.gguf")
    assert found["blk.0.attn_q.weight"] == "BF16"  # the command's own comes before the file's
    assert found["blk.0.attn_k.weight"] == "Q8_0"
    assert found["blk.0.ffn_up.weight"] == "Q3_K"
    assert found["output.weight"] == "Q5_0"
    assert found["token_embd.weight"] == "F16"
    assert not any(name.startswith("blk.1.") for name in found)
    assert read_header(tmp_path / "x.gguf").metadata["llama.block_count"] == 1
    done(owm("run", "x.gguf", "the", "-n", "2"))


@pytest.mark.parametrize("options", [["Q4_0", "--output-type", "Q6_K"], ["Q4_0", "--embedding-type", "IQ4_XS"]])
def test_a_type_that_rows_do_not_divide_is_refused_where_it_was_asked_for(
    owm: Owm, tmp_path: Path, options: list[str]
) -> None:
    write_tiny_gguf(tmp_path / "narrow.gguf")
    refused(owm("quantize", "narrow.gguf", *options, "--dry-run"), 2, "its rows of 64 do not divide into blocks of 256")


def test_a_dry_run_knows_the_size_with_an_importance_matrix_that_is_yet_to_be_computed(
    owm: Owm, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("".join(f"{number} the tin man sat there\n" for number in range(200)))
    options = ["Q4_0", "--imatrix", "auto", "--calibration", "text.txt", "--json", "-t", "1"]
    told = done(owm("quantize", model, *options, "--dry-run")).json["types"][0]
    assert not list(tmp_path.rglob("imatrix/*"))
    assert done(owm("quantize", model, *options, "-o", "x.gguf")).json[0]["size_bytes"] == told["size_bytes"]


def test_the_importance_matrix_is_not_overwritten(owm: Owm, model: Path, tmp_path: Path) -> None:
    imatrix = imatrix_for(read_header(model), tmp_path / "imatrix.gguf")
    content = imatrix.read_bytes()
    refused(owm("quantize", model, "Q4_0", "--imatrix", imatrix, "-o", "imatrix.gguf"), 2, "importance matrix itself")
    assert imatrix.read_bytes() == content


def test_a_checkpoint_in_parts_keeps_as_many(owm: Owm, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny", n_shards=2)
    made = done(owm("quantize", "tiny", "Q8_0", "--keep-split", "-o", "kept.gguf")).splitlines()
    assert made == ["kept-00001-of-00002.gguf", "kept-00002-of-00002.gguf"]
    done(owm("quantize", "tiny", "Q8_0", "-o", "whole.gguf"))
    assert tensors(*(tmp_path / name for name in made)) == tensors(tmp_path / "whole.gguf")


def test_pure_is_one_type(owm: Owm, model: Path) -> None:
    told = done(owm("quantize", model, "Q4_K_M", "--pure", "--dry-run", "--json")).json["types"][0]
    assert {tensor["to"] for tensor in told["tensors"]} == {"F32", "Q4_K"}


def test_an_importance_matrix_is_used_and_named(owm: Owm, model: Path, tmp_path: Path) -> None:
    imatrix = imatrix_for(read_header(model), tmp_path / "imatrix.gguf")
    done(owm("quantize", model, "Q4_0", "-o", "a.gguf", "--imatrix", imatrix))
    done(owm("quantize", model, "Q4_0", "-o", "b.gguf"))
    with_one, without = tensors(tmp_path / "a.gguf"), tensors(tmp_path / "b.gguf")
    assert with_one["blk.0.attn_q.weight"] != without["blk.0.attn_q.weight"]
    assert with_one["output.weight"] == without["output.weight"]
    metadata = read_header(tmp_path / "a.gguf").metadata
    assert metadata["quantize.imatrix.file"] == "imatrix.gguf"
    assert metadata["quantize.imatrix.dataset"] == "prose.txt"


def test_parts_stay_parts_or_become_others(owm: Owm, model: Path, tmp_path: Path) -> None:
    done(owm("split", model, "--max-tensors", "9"))
    parts = sorted(tmp_path.glob("tiny-F32-0*.gguf"))
    kept = done(owm("quantize", parts[0], "Q8_0", "--keep-split", "-o", "kept.gguf")).splitlines()
    assert len(kept) == len(parts)
    for made, source in zip(kept, parts, strict=True):
        assert [t.name for t in read_header(tmp_path / made).tensors] == [t.name for t in read_header(source).tensors]
    small = done(owm("quantize", model, "Q8_0", "--split-max-size", "400KB", "-o", "small.gguf")).splitlines()
    assert len(small) > 2
    assert all((tmp_path / name).stat().st_size <= 400_000 for name in small)
    done(owm("quantize", model, "Q8_0", "-o", "whole.gguf"))
    whole = tensors(tmp_path / "whole.gguf")
    for made in (kept, small):
        assert tensors(*(tmp_path / name for name in made)) == whole
    done(owm("run", small[0], "the", "-n", "2"))


def test_quantizing_again_only_if_allowed_and_with_a_warning(owm: Owm, model: Path, tmp_path: Path) -> None:
    done(owm("quantize", model, "Q8_0", "-o", "q8.gguf"))
    output = owm("quantize", "q8.gguf", "Q4_0", "-o", "q4.gguf")
    refused(output, 2, "quantized already (Q8_0)")
    assert "--allow-requantize" in output.stderr
    assert not (tmp_path / "q4.gguf").exists()
    again = done(owm("quantize", "q8.gguf", "Q4_0", "-o", "q4.gguf", "--allow-requantize"))
    assert "warning: " in again.stderr
    assert "quantized already (Q8_0)" in again.stderr
    assert types(tmp_path / "q4.gguf")["blk.0.attn_q.weight"] == "Q4_0"


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["Q4_K_N"], 2, ["unknown quantization type: Q4_K_N"]),
        (["IQ2_XS"], 2, ["IQ2_XS needs an importance matrix"]),
        (["Q4_K_M", "--tensor-type", "attn_v"], 2, ["REGEX=TYPE", "attn_v"]),
        (["Q4_K_M", "--tensor-type", "atn=Q8_0"], 2, ["fits no tensor", "atn"]),
        (["Q4_K_M", "--tensor-type", "attn_[=Q8_0"], 2, ["regular expression"]),
        (["Q4_K_M", "--tensor-type", "attn_v=Q4_K_M"], 2, ["unknown tensor type: Q4_K_M"]),
        (["Q4_K_M", "--tensor-type-file", "nowhere.txt"], 2, ["nowhere.txt"]),
        (["Q4_K_M", "--output-type", "q99"], 2, ["q99"]),
        (["Q8_0", "--tensor-type", "attn_q=IQ1_S"], 2, ["blk.0.attn_q.weight as IQ1_S needs an importance matrix"]),
        (["Q4_K_M", "--prune-layers", "1", "--tensor-type", r"blk\.1\.=Q8_0"], 2, ["fits no tensor"]),
        (["Q4_K_M", "-t", "-1"], 2, ["--threads"]),
        (["Q4_K_M", "-t", "0", "--dry-run"], 2, ["--threads"]),
        (["Q4_K_M", "--prune-layers", "2"], 2, ["no layer 2, the model has 2"]),
        (["Q4_K_M", "--prune-layers", "0,1"], 2, ["would leave no layer"]),
        (["Q4_K_M", "--prune-layers", "x"], 2, ["--prune-layers"]),
        (["Q4_K_M", "--keep-split", "--split-max-size", "1GB"], 2, ["--keep-split"]),
        (["Q4_K_M", "--split-max-size", "5KB"], 2, ["too small"]),
        (["Q4_K_M", "--max-memory", "much"], 2, ["--max-memory", "much"]),
        (["Q4_K_M", "--imatrix", "nowhere.gguf"], None, ["nowhere.gguf"]),
        (["Q4_K_M", "-o", "x.bin"], 2, [".gguf"]),
        (["Q4_K_M", "-o", "nowhere/x.gguf"], 2, ["nowhere"]),
        (["Q4_K_M", "Q8_0", "-o", "x.gguf"], 2, ["several types need a folder"]),
        (["F32", "-o", "tiny-F32.gguf"], 2, ["is the source itself"]),
        (["F32", "-o", "."], 2, ["is the source itself"]),
    ],
)
def test_wrong_arguments_get_one_error_and_write_nothing(
    owm: Owm, model: Path, tmp_path: Path, args: list[str], code: int | None, words: list[str]
) -> None:
    before, content = names(tmp_path), model.read_bytes()
    output = owm("quantize", model, *args)
    refused(output, output.exit_code if code is None else code, *words)
    assert output.exit_code != 0
    assert names(tmp_path) == before
    assert model.read_bytes() == content


def test_an_unknown_type_suggests_the_nearest(owm: Owm, model: Path) -> None:
    assert "did you mean `Q4_K_M`?" in owm("quantize", model, "Q4KM").stderr


def test_the_source_under_another_name_is_still_the_source(owm: Owm, model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    (tmp_path / "link.gguf").symlink_to(model)
    refused(owm("quantize", model, "Q8_0", "-o", "link.gguf"), 2, "is the source itself")
    os.link(model, tmp_path / "hard.gguf")
    owm("quantize", model, "Q8_0", "-o", "hard.gguf")
    assert model.read_bytes() == content


def test_another_models_importance_is_refused(owm: Owm, model: Path, tmp_path: Path) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", n_embd=256, n_blocks=3)
    wider = write_tiny_gguf(tmp_path / "wider.gguf", n_embd=320)
    for source in (other, wider):
        imatrix = imatrix_for(read_header(source), tmp_path / f"{source.stem}.imatrix")
        refused(owm("quantize", model, "Q4_0", "-o", "x.gguf", "--imatrix", imatrix), 2, "importance matrix")
    assert not (tmp_path / "x.gguf").exists()


def test_a_model_that_is_not_there_is_not_found(owm: Owm) -> None:
    refused(owm("quantize", "nothing.gguf", "Q8_0"), 3, "nothing.gguf")
    refused(owm("quantize", "local:nothing", "Q8_0"), 3, "local:nothing")


def test_a_folder_that_cannot_be_written_is_said(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    output = run(["-m", "owm", "quantize", model, "Q8_0", "-o", folder], unprivileged=True)
    refused(output, 1, "cannot write", "locked")
    assert names(folder) == []


def test_a_narrow_terminal_gets_every_tensor_whole(owm: Owm, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = done(owm("quantize", model, "Q4_K_M", "--dry-run"))
    for tensor in read_header(model).tensors:
        assert any(line.startswith(tensor.name) for line in text.splitlines()), tensor.name
    assert all(len(line) <= 60 for line in text.stderr.splitlines() if " " not in line.strip()[60:])


# -- interrupted -------------------------------------------------------------------------------------------------------

# The journal is written without delay, so that a second's work can be met in the middle. Ends as `python -m owm` does.
EAGER = (
    "import runpy, sys; from owm.pipeline import writer; writer.SYNC_SECONDS = 0.0; writer.BLOCK_VALUES = 1 << 17;"
    "runpy.run_module('owm', run_name='__main__')"
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 14 million weights: about a second's work."""
    config = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 3}
    return write_tiny_checkpoint(tmp_path_factory.mktemp("large") / "large", config=config)


@pytest.fixture(scope="module")
def whole(large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(["-m", "owm", "quantize", large, "Q4_K_M", "Q8_0", "-o", folder]).exit_code == 0
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _send_in_the_middle(args: list[str], folder: Path, number: signal.Signals, share: float, total: int) -> Output:
    """Run a command and send it a signal when it has brought a share of all bytes to disk, by its journals."""
    process = start(args)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        lines = [journal.read_text().splitlines() for journal in folder.glob("*.journal")]
        marks = [max((int(line) for line in each if line.isdecimal()), default=0) for each in lines]
        if sum(marks) > share * total:
            process.send_signal(number)
            break
        time.sleep(0.002)
    return finish(process)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_after_it_was_interrupted(
    large: Path, whole: dict[str, bytes], tmp_path: Path, number: signal.Signals
) -> None:
    total = sum(map(len, whole.values()))
    args = ["-c", EAGER, "quantize", str(large), "Q4_K_M", "Q8_0", "-o", str(tmp_path)]
    stopped = _send_in_the_middle(args, tmp_path, number, 0.3, total)
    assert not list(tmp_path.glob("*.gguf"))
    assert stopped.exit_code == (130 if number == signal.SIGINT else -signal.SIGKILL), stopped.stderr
    if number == signal.SIGINT:
        assert "the same command goes on" in stopped.stderr
        assert "Traceback" not in stopped.stderr
    kept = {path.name: path.stat().st_ino for path in tmp_path.glob("*.incomplete")}
    done(finish(start(args)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert {f"{path.name}.incomplete": path.stat().st_ino for path in tmp_path.iterdir()} == kept


def test_a_full_disk_is_said_and_the_rest_is_written_later(
    large: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    limit = len(whole["large-Q4_K_M.gguf"]) // 2
    # What is planned is more than the limit already: only files that are written are held to it.
    code = (
        "import resource; from owm.pipeline import writer; checked = writer._check_space;"
        f"writer._check_space = lambda files: (resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})),"
        "checked(files));"
    )
    output = run(["-c", code + EAGER, "quantize", str(large), "Q4_K_M", "-o", str(tmp_path)])
    refused(output, 6, "the disk is full")
    assert "Traceback" not in output.stderr
    assert not list(tmp_path.glob("*.gguf"))
    done(run(["-m", "owm", "quantize", str(large), "Q4_K_M", "-o", str(tmp_path)]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "large-Q4_K_M.gguf": whole["large-Q4_K_M.gguf"]
    }


def test_no_room_is_said_before_the_first_byte(owm: Owm, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owm.pipeline.writer.RESERVE_BYTES", 1 << 60)
    refused(owm("quantize", model, "Q8_0", "-o", "x.gguf"), 6, "x.gguf needs")
    assert names(model.parent) == ["tiny-F32.gguf"]


def test_a_source_that_changes_while_it_is_read_is_refused(
    owm: Owm, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from owm.pipeline.output import OutputFile

    append = OutputFile.append

    def touching(self: OutputFile, *args: Any) -> None:
        os.utime(model)
        append(self, *args)

    monkeypatch.setattr(OutputFile, "append", touching)
    refused(owm("quantize", model, "Q8_0", "-o", "x.gguf"), 7, "was changed while it was read")
    assert names(model.parent) == ["tiny-F32.gguf"]


def test_what_another_command_began_is_not_mixed_in(owm: Owm, model: Path, tmp_path: Path) -> None:
    """An unfinished file with other overrides, or of a source that has changed, does not count."""
    done(owm("quantize", model, "Q8_0", "-o", "wanted.gguf"))
    wanted = (tmp_path / "wanted.gguf").read_bytes()
    (tmp_path / "x.gguf.incomplete").write_bytes(bytes(len(wanted)))
    (tmp_path / "x.gguf.incomplete.journal").write_text(json.dumps({"plan": "0" * 64}) + f"\n{len(wanted)}\n")
    done(owm("quantize", model, "Q8_0", "-o", "x.gguf"))
    assert (tmp_path / "x.gguf").read_bytes() == wanted


def test_a_model_says_that_it_has_room_for_a_certificate(owm: Owm, model: Path, tmp_path: Path) -> None:
    from owm.quality import certificate

    done(owm("quantize", model, "Q8_0", "-o", "x.gguf"))
    value = read_header(tmp_path / "x.gguf").metadata[certificate.KEY]
    assert value == certificate.blank()
    raw = (tmp_path / "x.gguf").read_bytes()
    assert struct.pack("<Q", len(certificate.KEY)) + certificate.KEY.encode() in raw
