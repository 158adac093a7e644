"""The quality certificate: what was measured of a file, written into the file itself.

A file that owm makes has room for it in its header: a text of a fixed size under one key, blank until something is
measured. Stamping overwrites that text in place, so that no tensor moves and the file's sha256 with the text blanked
stays what the manifest says. What a file from elsewhere says of itself is a claim and no more.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from owm import __version__
from owm.errors import StoreError, UsageError
from owm.formats import gguf
from owm.formats.gguf import Header
from owm.quality.figures import Divergence, Estimate

KEY = "owm.quality.certificate"
SIZE = 1024
VERSION = 1
_STRING = 8
_PREFIX_BYTES = 12  # of a text value: its type, its length. ref: ggml/docs/gguf.md
_MAX_NAME = 80
_MAX_FIGURE = 1e12  # a stranger's file may say anything


@dataclass(frozen=True, slots=True)
class Place:
    """Where the certificate's text lies in a file, in bytes."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was measured of a file, against which reference, on which text.

    `reference_sha256` is that of the reference's file with its own certificate blanked; see `Divergence` for figures.
    """

    reference: str
    reference_sha256: str
    text: str
    text_sha256: str
    n_ctx: int
    n_chunks: int
    n_chunks_total: int
    n_tokens: int
    kld_mean: Estimate
    kld_median: Estimate
    kld_p99: Estimate
    perplexity_reference: Estimate
    perplexity: Estimate
    top1_agreement: Estimate
    by: str

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


_ESTIMATES = ("kld_mean", "kld_median", "kld_p99", "perplexity_reference", "perplexity", "top1_agreement")
_COUNTS = ("n_ctx", "n_chunks", "n_chunks_total", "n_tokens")
_TEXTS = ("reference", "reference_sha256", "text", "text_sha256", "by")


def certify(divergence: Divergence, *, reference: str, reference_sha256: str) -> Certificate:
    """Make the certificate of what was measured; names are cut to what fits."""
    return Certificate(
        reference=reference[-_MAX_NAME:],
        reference_sha256=reference_sha256,
        text=divergence.text_name[-_MAX_NAME:],
        text_sha256=divergence.text_sha256,
        n_ctx=divergence.n_ctx,
        n_chunks=divergence.n_chunks,
        n_chunks_total=divergence.n_chunks_total,
        n_tokens=divergence.n_tokens,
        kld_mean=_rounded(divergence.kld_mean),
        kld_median=_rounded(divergence.kld_median),
        kld_p99=_rounded(divergence.kld_p99),
        perplexity_reference=_rounded(divergence.perplexity_reference),
        perplexity=_rounded(divergence.perplexity),
        top1_agreement=_rounded(divergence.top1_agreement),
        by=f"owm {__version__}",
    )


def blank() -> str:
    """Return the value that reserves the room."""
    return " " * SIZE


def encode(certificate: Certificate) -> bytes:
    """Return a certificate as the text of fixed size that goes into a file."""
    found: dict[str, Any] = {"version": VERSION}
    found |= {name: getattr(certificate, name) for name in (*_TEXTS, *_COUNTS)}
    found |= {name: list(_ends(getattr(certificate, name))) for name in _ESTIMATES}
    raw = json.dumps(found, separators=(",", ":")).encode("ascii")
    for name in ("text", "reference"):  # names of other scripts are long when escaped
        if len(raw) > SIZE:
            found[name] = ""
            raw = json.dumps(found, separators=(",", ":")).encode("ascii")
    assert len(raw) <= SIZE
    return raw.ljust(SIZE)


def parse(value: object) -> Certificate | None:
    """Read a certificate from a file's value or a manifest's record; None if it is blank or no certificate."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
        if not isinstance(found, dict) or found.get("version", VERSION) != VERSION:
            return None
        texts = {name: found[name] for name in _TEXTS}
        counts = {name: found[name] for name in _COUNTS}
        estimates = {name: _estimate(found[name]) for name in _ESTIMATES}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(text, str) and len(text) <= SIZE for text in texts.values()):
        return None
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts.values()):
        return None
    values: dict[str, Any] = {**texts, **counts, **estimates}
    return Certificate(**values)


def of_header(header: Header) -> Certificate | None:
    """Return what a file says of its own quality, None if it says nothing."""
    return parse(header.text(KEY))


def of_manifest(quality: object) -> Certificate | None:
    """Return what a manifest says of its model's quality, None if nothing was measured."""
    return parse(quality.get("certificate")) if isinstance(quality, dict) else None


def place_of(header: Header) -> Place | None:
    """Return where a file has room for a certificate, None if it has not: then owm did not make it."""
    text = header.text(KEY)
    if text is None or KEY not in header.places:
        return None
    begin, end = header.places[KEY]
    if end - begin != _PREFIX_BYTES + SIZE:
        return None
    return Place(begin + _PREFIX_BYTES, SIZE)


def manifest_entry(certificate: Certificate, place: Place | None) -> dict[str, Any]:
    """Return what the manifest keeps: the figures, and what is blanked before its first file is hashed."""
    return {"certificate": certificate.record(), "blanked": None if place is None else asdict(place)}


def stamp(path: Path, certificate: Certificate) -> Place:
    """Write a certificate into a file that owm made, over the one that is there, and flush it; return where it is.

    Raises:
        UsageError: the file has no room for one: owm did not make it, so it is not edited.
        MalformedFile, StoreError: it cannot be read or written.
    """
    place = place_of(gguf.read_header(path))
    if place is None:
        raise UsageError(f"{path.name} was not made by owm, so no certificate is written into it")
    raw = encode(certificate)
    try:
        with open(path, "r+b", buffering=0) as file:
            file.seek(place.offset)
            written = file.write(raw)
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    if written != len(raw):
        raise StoreError(f"cannot write {path}: the disk took {written} of {len(raw)} bytes")
    return place


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _rounded(estimate: Estimate) -> Estimate:
    return Estimate(*(float(f"{number:.6g}") for number in _ends(estimate)))


def _estimate(found: object) -> Estimate:
    if isinstance(found, dict):
        found = [found["value"], found["low"], found["high"]]
    if not isinstance(found, Sequence) or len(found) != 3:
        raise ValueError("no estimate")
    numbers = [float(number) for number in found if isinstance(number, int | float) and not isinstance(number, bool)]
    if len(numbers) != 3 or not all(abs(number) < _MAX_FIGURE for number in numbers):
        raise ValueError("no numbers")
    return Estimate(*numbers)
