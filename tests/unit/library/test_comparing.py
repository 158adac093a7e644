"""Two model files compared: the first key, tensor or file that differs is named, the certificate is none."""

from pathlib import Path

import pytest

from owm.formats.gguf import read_header
from owm.library.comparing import Difference, first_difference
from owm.quality import certificate
from support.tiny_gguf import write_tiny_gguf


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same model twice, with room for a certificate."""
    metadata = {certificate.KEY: certificate.blank(), "general.name": "tiny"}
    paths = tmp_path / "built.gguf", tmp_path / "recorded.gguf"
    for path in paths:
        write_tiny_gguf(path, metadata=metadata)
    return paths


def compared(built: Path, recorded: Path) -> Difference | None:
    return first_difference([built], [recorded])


def test_the_same_files_do_not_differ(pair: tuple[Path, Path]) -> None:
    assert compared(*pair) is None


def test_a_certificate_is_no_difference(pair: tuple[Path, Path]) -> None:
    place = certificate.place_of(read_header(pair[1]))
    assert place is not None
    content = bytearray(pair[1].read_bytes())
    content[place.offset : place.offset + 3] = b"abc"
    pair[1].write_bytes(content)
    assert compared(*pair) is None


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_byte_names_its_tensor(where: str, pair: tuple[Path, Path]) -> None:
    header = read_header(pair[0])
    tensor = {"first": header.tensors[0], "middle": header.tensors[5], "last": header.tensors[-1]}[where]
    offset = header.data_offset + tensor.offset + (tensor.n_bytes - 1 if where == "last" else 0)
    content = bytearray(pair[1].read_bytes())
    content[offset] ^= 0x80
    pair[1].write_bytes(content)
    found = compared(*pair)
    assert found is not None
    assert (found.kind, found.name, found.number, found.offset) == ("tensor", tensor.name, 1, offset)
    assert str(found) == f"the tensor {tensor.name} (file 1, byte {offset})"


def test_a_key_is_named_with_both_values(pair: tuple[Path, Path]) -> None:
    metadata = {certificate.KEY: certificate.blank(), "general.name": "another"}
    write_tiny_gguf(pair[1], metadata=metadata)
    found = compared(*pair)
    assert found is not None
    assert (found.kind, found.name, found.recorded, found.built) == ("key", "general.name", "'another'", "'tiny'")
    write_tiny_gguf(pair[1], metadata=metadata | {"general.name": "tiny", "general.url": "x"})
    found = compared(*pair)
    assert found is not None
    assert (found.name, found.recorded, found.built) == ("general.url", "'x'", None)


def test_a_file_that_goes_on_differs_where_the_other_ends(pair: tuple[Path, Path]) -> None:
    size = pair[0].stat().st_size
    pair[1].write_bytes(pair[1].read_bytes() + b"more")
    found = compared(*pair)
    assert found is not None
    assert (found.kind, found.offset, found.recorded, found.built) == ("size", size, str(size + 4), str(size))


def test_files_are_counted_first(pair: tuple[Path, Path]) -> None:
    found = first_difference(list(pair), [pair[0]])
    assert found is not None
    assert str(found) == "2 files instead of 1"
