"""The lock file: what is written is read back, whatever the names; what cannot be pinned is refused."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import Damaged, MalformedFile, OwmError
from owm.library.locking import Lock, LockedFile, LockedModel, dump, is_same, read_lock
from owm.store import refs

SHA256S = st.text("0123456789abcdef", min_size=64, max_size=64)
PATHS = st.sampled_from(
    ["a.gguf", "Q8_0/a b.gguf", 'quo"ted\\.gguf'.replace("\\", ""), "ünï.gguf", "x-00001-of-00002.gguf"]
)
FILES = st.builds(LockedFile, PATHS, st.integers(0, (1 << 63) - 1), SHA256S)
SOURCES = st.sampled_from(
    ["acme/tiny", "ollama:tiny:8b", "pypi:tiny==1.0", "https://host/x.gguf", "modelscope:a/b", "local:x"]
)
LINES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=60)
MODELS = st.builds(
    LockedModel,
    name=st.from_regex(r"[a-z]{1,12}:[0-9]b:Q[0-9]_0", fullmatch=True),
    ref=SOURCES.map(refs.parse),
    quant=st.none() | LINES,
    commit=st.none() | st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    files=st.tuples(FILES, st.builds(LockedFile, PATHS, st.just(3), SHA256S, st.sampled_from(["shard", "projector"]))),
    licence=st.none() | LINES,
    is_made_here=st.booleans(),
)


@given(st.lists(MODELS, max_size=4, unique_by=lambda model: model.name))
def test_a_lock_file_is_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, models: list[LockedModel]
) -> None:
    path = tmp_path_factory.getbasetemp() / "owm.lock"
    lock = Lock().put(models)
    path.write_text(dump(lock), "utf-8")
    assert read_lock(path) == lock
    assert dump(read_lock(path)) == dump(lock)
    assert [model.name for model in lock.models] == sorted(model.name for model in models)


@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: ("version = 1\n" + text).encode()))
def test_any_bytes_are_a_lock_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "strange.lock"
    path.write_bytes(content)
    with contextlib.suppress(OwmError):
        assert read_lock(path).models == ()


def test_a_folder_or_a_pipe_in_its_place_is_an_error_of_ours(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "pipe", "it is no regular file")):
        with pytest.raises(MalformedFile, match=words):
            read_lock(path)


def test_what_is_put_takes_the_place_of_what_had_its_name() -> None:
    old, new = (LockedModel("a/b:Q8_0", refs.parse("a/b"), "Q8_0", commit, ()) for commit in ("1" * 40, "2" * 40))
    other = LockedModel("a/a:Q8_0", refs.parse("a/a"), "Q8_0", None, ())
    lock = Lock().put([old]).put([new, other])
    assert lock.models == (other, new)
    assert lock.put([], without=["a/a:Q8_0"]).models == (new,)
    assert not is_same(old, new)


def test_a_later_key_is_no_key_of_this_version(tmp_path: Path) -> None:
    path = tmp_path / "owm.lock"
    path.write_text(dump(Lock()) + "later = 1\n")
    with pytest.raises(Damaged, match="beside models"):
        read_lock(path)
