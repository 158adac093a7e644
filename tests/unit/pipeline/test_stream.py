"""A file written in order: the bytes are the same however they come, and from wherever a write goes on."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from owm.pipeline import stream
from owm.pipeline.stream import Stream

DATA = np.random.default_rng(0).integers(0, 256, 100_003, np.uint8).tobytes()


@pytest.fixture(autouse=True, params=[4096, 65536])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(stream, "CHUNK_BYTES", request.param)
    return int(request.param)


@pytest.fixture(params=["direct", "buffered", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the bytes go: past the page cache, through it, or where the system refuses the first at the first write."""
    if request.param == "buffered":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    elif request.param == "refused":
        real, direct = os.pwrite, []

        def opened(path: Path) -> int:
            direct.append(os.open(path, os.O_WRONLY))
            return direct[0]

        def pwrite(fd: int, raw: bytes, offset: int) -> int:
            if fd in direct:
                raise OSError(22, "Invalid argument")
            return real(fd, raw, offset)

        monkeypatch.setattr(stream, "_open_direct", opened)
        monkeypatch.setattr(os, "pwrite", pwrite)
    return str(request.param)


def _append(writer: Stream, data: bytes, piece: int) -> None:
    for begin in range(0, len(data), piece):
        writer.append(memoryview(data[begin : begin + piece]))


@pytest.mark.parametrize("piece", [1000, 4096, 200_000])
def test_what_is_appended_is_what_lies_there(tmp_path: Path, way: str, piece: int) -> None:
    path = tmp_path / "file"
    writer = Stream(path, len(DATA), digest=True)
    _append(writer, DATA, piece)
    assert writer.finish() == hashlib.sha256(DATA).hexdigest()
    writer.close()
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("position", [0, 1, 4095, 4096, 5000, 65536, 99_999, len(DATA)])
def test_a_write_goes_on_from_any_position(tmp_path: Path, position: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA[:position] + b"?" * (len(DATA) - position))
    writer = Stream(path, len(DATA), position=position, digest=True)
    _append(writer, DATA[position:], 3000)
    assert writer.finish() == hashlib.sha256(DATA).hexdigest()
    writer.close()
    assert path.read_bytes() == DATA


def test_everything_below_the_watermark_is_written(tmp_path: Path, way: str) -> None:
    path = tmp_path / "file"
    writer = Stream(path, len(DATA))
    for begin in range(0, 60_000, 3000):
        writer.append(memoryview(DATA[begin : begin + 3000]))
        mark = writer.watermark()
        assert mark <= begin + 3000
        assert path.read_bytes()[:mark] == DATA[:mark]
    assert writer.suspend() == 60_000
    writer.close()
    assert path.read_bytes()[:60_000] == DATA[:60_000]


def test_a_write_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, raw: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    writer = Stream(tmp_path / "file", len(DATA))
    monkeypatch.setattr(os, "pwrite", full)

    def all_of_it() -> None:
        _append(writer, DATA, 3000)
        writer.finish()

    with pytest.raises(OSError, match="No space"):
        all_of_it()
    writer.close()
