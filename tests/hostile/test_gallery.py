"""Each file of the gallery is refused, with its own cause: in time, in little memory, and with no word of Python's."""

import io
import json
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from hostile.gallery import DEADLY, EXHIBITS, FATES, Exhibit
from hostile.gallery.table import PATH, table
from owm.cli.failures import exit_code
from owm.convert.conversion import plan_folder
from owm.engine.adapter import check_adapter
from owm.engine.model import Model, read_headers
from owm.errors import OwmError
from owm.formats import gguf
from owm.library.row_check import RowCheck
from owm.store import manifest
from owm.store.model import at_path
from owm.store.refs import ModelRef
from support.crafted_gguf import crafted
from support.run import finish, run_here, start

MAX_SECONDS, MAX_BYTES = 2.0, 256 << 20
# What is wrong with these only llama.cpp's code of the architecture, or of the vocabulary, can tell; it does so itself.
BY_LLAMA_CPP = [name for name, each in EXHIBITS.items() if each.code == 1 or name == "architecture-missing"]
CONFIG = '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but the exhibit in it."""
    path = tmp_path / "exhibit"
    path.mkdir()
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The model that the gallery's files are like, with nothing wrong."""
    path = tmp_path / "base.gguf"
    path.write_bytes(crafted())
    return path


def write(exhibit: Exhibit, folder: Path) -> Path:
    """Write the files of an exhibit, and return the one that is opened."""
    files = exhibit.files()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def opening(exhibit: Exhibit, path: Path, base: Path) -> Callable[[], object]:
    """Return how owm opens such a file, up to where llama.cpp would be asked."""
    if exhibit.kind == "adapter":
        headers = [gguf.read_header(base)]
        return lambda: check_adapter(path, headers)
    if exhibit.kind == "checkpoint":
        (path.parent / "config.json").write_text(CONFIG)
        return lambda: plan_folder(path.parent)
    if exhibit.kind == "manifest":
        return lambda: manifest.parse(path.read_text(), path)
    if exhibit.kind == "weights":
        return lambda: check_rows(path)
    return lambda: read_headers(at_path(ModelRef("path", str(path))).files)


def check_rows(path: Path) -> None:
    """Look at the weights, as `owm verify --full` does beside hashing."""
    rows = RowCheck(read_headers([path])[0])
    rows.take(memoryview(path.read_bytes()))
    if rows.problem is not None:
        raise rows.problem


@pytest.mark.parametrize("name", [name for name in EXHIBITS if name not in BY_LLAMA_CPP])
def test_it_is_refused_with_its_own_cause(name: str, folder: Path, base: Path) -> None:
    exhibit = EXHIBITS[name]
    open_it = opening(exhibit, write(exhibit, folder), base)
    began = time.process_time()
    with pytest.raises(OwmError) as caught:
        open_it()
    assert time.process_time() - began < MAX_SECONDS
    tracemalloc.start()
    try:
        with pytest.raises(type(caught.value)):
            open_it()
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert exhibit.says in message
    assert exit_code(caught.value) == exhibit.code
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("name", BY_LLAMA_CPP)
def test_what_llama_cpp_refuses_is_said_in_its_words(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWM_TRUST", "0")  # so a process of its own is asked
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    exhibit = EXHIBITS[name]
    output = run_here(capsys, "run", write(exhibit, folder), "hi")
    assert output.exit_code == exhibit.code
    assert output == ""
    said = [line for line in output.stderr.splitlines() if not line.startswith("trying ")]
    assert [line.partition(":")[0] for line in said] == ["error", "hint"], output.stderr
    assert exhibit.says in said[0]


def test_the_model_that_they_are_like_is_taken(base: Path) -> None:
    """So whatever is refused is refused for the one thing that is wrong with it."""
    with Model([base]) as model:
        assert model.tokenize("hi")
    check_rows(base)


READ = """
import json, resource, sys
from pathlib import Path
from owm.errors import OwmError
from owm.formats import gguf, safetensors

refused = []
for path in map(Path, sys.argv[1:]):
    reader = gguf if path.suffix == ".gguf" else safetensors
    try:
        header = reader.read_header(path)
        if reader is gguf:
            header.check_vocabulary()
    except OwmError:
        refused.append(path.parent.name)
spent = resource.getrusage(resource.RUSAGE_SELF)
peak = spent.ru_maxrss  # bytes on a Mac; on Linux it began with what the parent process had
status = Path("/proc/self/status")
if status.exists():
    peak = 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([refused, peak, spent.ru_utime + spent.ru_stime]))
"""


def test_one_process_reads_them_all(tmp_path: Path) -> None:
    """What Python's own count of memory does not see, this does."""
    paths = []
    for name, exhibit in EXHIBITS.items():
        if exhibit.kind in ("model", "checkpoint"):
            (tmp_path / name).mkdir()
            paths.append(write(exhibit, tmp_path / name))
    output = finish(start(["-c", READ, *(path for path in paths if path.suffix != ".json")]), timeout=300)
    assert output.exit_code == 0, output.stderr[-2000:]
    refused, n_bytes, seconds = json.loads(output)
    assert len(refused) > 90
    assert n_bytes < MAX_BYTES
    assert seconds < MAX_SECONDS * len(paths)


def test_the_gallery_is_complete() -> None:
    assert len(EXHIBITS) >= 50
    assert len({exhibit.says for exhibit in EXHIBITS.values()}) == len(EXHIBITS)
    assert len({exhibit.attack for exhibit in EXHIBITS.values()}) == len(EXHIBITS)
    for exhibit in EXHIBITS.values():
        assert exhibit.fate in FATES
        assert exhibit.attack.isprintable(), exhibit.name
        assert (exhibit.fate == "unread") == (exhibit.kind in ("checkpoint", "manifest"))
        # What takes llama.cpp's process down must not get as far as its own word.
        assert exhibit.fate not in DEADLY or exhibit.name not in BY_LLAMA_CPP


def test_the_table_is_fresh() -> None:
    """`scripts/hostile_survey --write` writes it."""
    assert PATH.read_text(encoding="utf-8") == table()
    assert len(re.findall(r"^\| [a-z0-9-]+[a-z0-9] \| ", table(), re.MULTILINE)) == len(EXHIBITS)
