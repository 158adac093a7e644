"""Headers of files that are elsewhere: read in growing parts, kept, checked, and opened by llama.cpp."""

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from owm.errors import MalformedFile, OwmError, Unsupported
from owm.fit import header
from owm.fit.header import RemoteHeader
from owm.formats.gguf import read_header
from owm.native.guard import Child, ContextWish
from owm.store.refs import ModelRef
from owm.store.sources.base import Offer, RemoteFile
from support import packed_gguf
from support.tiny_gguf import write_tiny_gguf


@dataclass
class Elsewhere:
    """A source of bytes that counts what is asked of it; of a source's verbs only `read` is called here."""

    content: bytes
    reads: list[tuple[int, int]] = field(default_factory=list)
    problem: OwmError | None = None

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        self.reads.append((begin, n_bytes))
        if self.problem is not None:
            raise self.problem
        return self.content[begin : begin + n_bytes]


FILE = RemoteFile("model.gguf", 0, "ab" * 32)


def offer_of(file: RemoteFile = FILE, **more: Any) -> Offer:
    facts = {"source": "hub", "name": "o/r", "revision": "main", "commit": "c" * 40, **more}
    return Offer(ModelRef("hub", "o/r"), files=(file,), **facts)


def fetched(content: bytes, *, kept_in: Path | None = None) -> tuple[RemoteHeader, Elsewhere]:
    source = Elsewhere(content)
    file = RemoteFile("model.gguf", len(content), "ab" * 32)
    return header.fetch(source, offer_of(file), file, kept_in=kept_in), source  # type: ignore[arg-type]


def test_a_header_is_all_that_is_kept_of_a_file(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    found, source = fetched(path.read_bytes())
    assert source.reads == [(0, header.FIRST_BYTES)]
    assert 0 <= read_header(path).data_offset - len(found.raw) < 32
    assert path.read_bytes().startswith(found.raw)


def test_a_long_header_is_read_in_growing_parts() -> None:
    tokens = packed_gguf.array("tokenizer.ggml.tokens", 8, [f"token{i:06d}" for i in range(200_000)])
    content = packed_gguf.pack([tokens], [packed_gguf.tensor("a", (4,), 0, 0)]) + bytes(5 << 20)
    found, source = fetched(content)
    assert [n for _, n in source.reads] == [1 << 20, 1 << 20, 2 << 20]
    assert len(found.raw) < 4 << 20


def test_any_cut_of_a_header_is_told_from_a_whole_one(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", n_blocks=1)
    raw = fetched(path.read_bytes())[0].raw
    assert header.extent(raw, path) == len(raw)
    for end in range(4, len(raw), 7):
        told = header.extent(raw[:end], path)
        assert told is None or told > end


def test_llama_cpp_opens_a_header_with_a_hole_for_the_weights(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    found, _ = fetched(path.read_bytes())
    wish = ContextWish(512, 512, 512)
    with header.hollow([found]) as [hollow], Child() as child:
        assert hollow.tensors == read_header(path).tensors
        assert hollow.strings("tokenizer.ggml.tokens") == read_header(path).strings("tokenizer.ggml.tokens")
        assert child.sizes(hollow.path, wish).kv_bytes == child.sizes(path, wish).kv_bytes


def test_parts_of_a_model_are_found_beside_the_first(tmp_path: Path) -> None:
    from owm.pipeline.model_file import open_model_file
    from owm.pipeline.parts import file_names
    from owm.pipeline.plan import make_plan
    from owm.pipeline.writer import write

    whole = write_tiny_gguf(tmp_path / "tiny.gguf", n_blocks=4)
    opened = open_model_file([whole])
    plan = make_plan(opened.metadata, opened.tensors, split_max_bytes=whole.stat().st_size // 3, origin=opened.origin)
    names = file_names("tiny.gguf", len(plan.files))
    write(plan, [tmp_path / name for name in names])
    assert len(names) > 1
    remote = [fetched((tmp_path / name).read_bytes())[0] for name in names]
    wish = ContextWish(512, 512, 512)
    with header.hollow(remote) as headers, Child() as child:
        assert child.sizes(headers[0].path, wish) == child.sizes(tmp_path / names[0], wish) or (
            child.sizes(headers[0].path, wish).kv_bytes == child.sizes(whole, wish).kv_bytes > 0
        )


def test_parts_of_a_model_are_asked_for_side_by_side_and_only_the_first_for_much(tmp_path: Path) -> None:
    content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    together = threading.Barrier(header.N_AT_ONCE)

    class Slow(Elsewhere):
        def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
            together.wait(20)  # nobody comes through alone
            return super().read(offer, file, begin, n_bytes)

    files = [RemoteFile(f"m-{i}.gguf", len(content), f"{i:064x}") for i in range(2 * header.N_AT_ONCE)]
    source = Slow(content)
    found = header.fetch_all(source, offer_of(), files)  # type: ignore[arg-type]
    assert [each.name for each in found] == [file.path for file in files]
    assert sorted(source.reads) == [(0, header.PART_BYTES)] * (len(files) - 1) + [(0, header.FIRST_BYTES)]
    with pytest.raises(MalformedFile):
        header.fetch_all(Elsewhere(b"no model"), offer_of(), files)  # type: ignore[arg-type]


def test_a_kept_header_is_not_fetched_again(tmp_path: Path) -> None:
    content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    first, _ = fetched(content, kept_in=tmp_path / "kept")
    again, source = fetched(content, kept_in=tmp_path / "kept")
    assert again == first
    assert source.reads == []


def test_a_kept_header_that_was_cut_short_is_fetched_again(tmp_path: Path) -> None:
    content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    first, _ = fetched(content, kept_in=tmp_path / "kept")
    [kept] = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    again, source = fetched(content, kept_in=tmp_path / "kept")
    assert again == first
    assert source.reads


def test_a_header_of_a_web_address_is_not_kept(tmp_path: Path) -> None:
    content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    file = RemoteFile("model.gguf", len(content))
    header.fetch(Elsewhere(content), offer_of(file, source="url"), file, kept_in=tmp_path / "kept")  # type: ignore[arg-type]
    assert not (tmp_path / "kept").exists()


def test_old_headers_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    monkeypatch.setattr(header, "MAX_KEPT_BYTES", 1)
    for digest in ("aa", "bb"):
        file = RemoteFile("model.gguf", len(content), digest * 32)
        header.fetch(Elsewhere(content), offer_of(file), file, kept_in=tmp_path / "kept")  # type: ignore[arg-type]
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"<html>no such file</html>", b"GGU"])
def test_what_is_no_model_file_is_refused_at_once(content: bytes) -> None:
    source = Elsewhere(content)
    with pytest.raises(MalformedFile, match="begins with"):
        header.fetch(source, offer_of(), FILE)  # type: ignore[arg-type]
    assert len(source.reads) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 63) + bytes(100),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + packed_gguf.text("a") + struct.pack("<I", 4_000_000),
        packed_gguf.pack([], [packed_gguf.tensor("a", (4,), 0, 0)])[:-20],
    ],
)
def test_a_damaged_header_is_refused_in_bounded_time(content: bytes) -> None:
    def look() -> None:
        found, _ = fetched(content)
        with header.hollow([found]):
            pass

    with pytest.raises(MalformedFile):
        look()


def test_a_header_that_has_no_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_BYTES", 4 << 20)
    endless = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + packed_gguf.text("a") + struct.pack("<IIQ", 9, 8, 1 << 20)
    with pytest.raises(MalformedFile, match="larger than 4"):
        fetched(endless + bytes(16 << 20))


def test_a_source_that_gives_no_parts_says_so() -> None:
    source = Elsewhere(b"", problem=Unsupported("whole files only"))
    with pytest.raises(Unsupported, match="whole files only"):
        header.fetch(source, offer_of(), FILE)  # type: ignore[arg-type]


def test_a_malformed_header_is_named_as_its_file(tmp_path: Path) -> None:
    raw = packed_gguf.pack([packed_gguf.key("general.alignment", 4, 3)], [])
    parts: Sequence[RemoteHeader] = [RemoteHeader("folder/model-Q4_0.gguf", raw, len(raw))]
    with pytest.raises(MalformedFile, match=r"model-Q4_0\.gguf") as caught, header.hollow(parts):
        pass
    assert "alignment" in str(caught.value)
