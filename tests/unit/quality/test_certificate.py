"""The certificate in a file's header: fixed in size, written in place, believed by nobody blindly."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import UsageError
from owm.formats import gguf
from owm.quality import certificate
from owm.quality.figures import Divergence, Estimate
from owm.store.digest import sha256_of
from support.tiny_gguf import write_tiny_gguf

SHA = "0123456789abcdef" * 4


def divergence(text_name: str = "owm's evaluation text") -> Divergence:
    """Return figures as they may come out."""
    figures = [Estimate(value, value * 0.95, value * 1.05) for value in (0.0345678912, 0.01, 0.3, 14.5, 15.7, 0.88)]
    return Divergence(text_name, SHA, 512, 80, 332, 20400, *figures, 12.5)


def made(reference: str = "smollm2:BF16") -> certificate.Certificate:
    """Return a certificate."""
    return certificate.certify(divergence(), reference=reference, reference_sha256=SHA)


@given(st.text(max_size=300), st.text(max_size=300))
def test_it_has_its_size_and_is_read_back_whatever_the_names(reference: str, text: str) -> None:
    found = certificate.certify(divergence(text), reference=reference, reference_sha256=SHA)
    raw = certificate.encode(found)
    assert len(raw) == certificate.SIZE
    assert raw.isascii()
    again = certificate.parse(raw.decode())
    assert again is not None
    assert again.kld_mean == found.kld_mean == Estimate(0.0345679, 0.0328395, 0.0362963)
    assert again.reference in (found.reference, "")
    assert certificate.parse(json.loads(json.dumps(found.record()))) == found


def test_blank_room_is_no_certificate() -> None:
    assert len(certificate.blank()) == certificate.SIZE
    assert certificate.parse(certificate.blank()) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda item: st.lists(item, max_size=4)
    ),
    st.sampled_from(["n_chunks", "reference", "text_sha256"]),
)
def test_what_is_no_certificate_is_none(value: object, name: str) -> None:
    found = json.loads(certificate.encode(made())) | {name: value}
    parsed = certificate.parse(json.dumps(found))
    assert parsed is None or (name != "n_chunks" and isinstance(value, str))
    assert certificate.parse(value) is None


@pytest.mark.parametrize("value", ["[" * 1000, '{"version":1}', "NaN", "1", None, 3, {"version": 2}, []])
def test_nonsense_is_none(value: object) -> None:
    assert certificate.parse(value) is None


def test_stamping_changes_the_reserved_bytes_alone(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "made.gguf", metadata={certificate.KEY: certificate.blank()})
    before, sha = path.read_bytes(), sha256_of(path)
    assert certificate.of_header(gguf.read_header(path)) is None
    place = certificate.stamp(path, made())
    after = path.read_bytes()
    end = place.offset + place.size_bytes
    assert (after[: place.offset], after[end:]) == (before[: place.offset], before[end:])
    assert after[place.offset : end] == certificate.encode(made())
    assert certificate.of_header(gguf.read_header(path)) == made()
    assert sha256_of(path) != sha
    assert sha256_of(path, blanked=(place.offset, place.size_bytes)) == sha
    certificate.stamp(path, made("another:F16"))
    found = certificate.of_header(gguf.read_header(path))
    assert found is not None
    assert found.reference == "another:F16"


@pytest.mark.parametrize("room", [None, " " * (certificate.SIZE - 1), 7])
def test_files_of_others_are_never_edited(tmp_path: Path, room: str | int | None) -> None:
    path = write_tiny_gguf(tmp_path / "theirs.gguf", metadata={} if room is None else {certificate.KEY: room})
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"theirs\.gguf was not made by owm"):
        certificate.stamp(path, made())
    assert path.read_bytes() == before
    assert certificate.of_header(gguf.read_header(path)) is None


def test_a_digest_with_blanks_across_the_edges_of_what_is_read(tmp_path: Path) -> None:
    chunk = 1 << 22
    plain = bytearray(b"x" * (2 * chunk + 100))
    (tmp_path / "file").write_bytes(plain)
    for begin in (0, chunk - 10, 2 * chunk + 90):
        blanked = bytearray(plain)
        blanked[begin : begin + 1024] = b" " * min(1024, len(plain) - begin)
        (tmp_path / "blank").write_bytes(blanked)
        assert sha256_of(tmp_path / "file", blanked=(begin, 1024)) == sha256_of(tmp_path / "blank")
