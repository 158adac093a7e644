"""The text of a PDF, page by page. A PDF is a stranger's: whatever reading it raises becomes an error of ours."""

import logging
import warnings
from pathlib import Path
from typing import BinaryIO

from owm.errors import MalformedFile, OwmError, Unsupported

MAX_PAGES = 20_000
MAX_CHARS = 64 << 20  # as much as any text may have; a few kilobytes can unfold to gigabytes


def read_text(file: BinaryIO, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the text of all pages, an empty line between them, and notes about pages that have none.

    Raises:
        Unsupported: it is encrypted, or holds no text, only images.
        MalformedFile: it is damaged.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # it talks about every oddity; the text is what counts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pages = _pages(file, name)
    except (OwmError, OSError):
        raise
    except RecursionError as error:
        raise MalformedFile(Path(name), "it is nested too deeply", kind="PDF") from error
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")[:200]
        raise MalformedFile(Path(name), reason or type(error).__name__, kind="PDF") from error
    empty = [number for number, text in enumerate(pages, 1) if not text.strip()]
    if len(empty) == len(pages):
        what = "its one page is an image" if len(pages) == 1 else f"its {len(pages)} pages are images"
        raise Unsupported(
            f"{name} holds no text, {what if pages else 'it has no pages'}", hint="`ocrmypdf` puts text into scans"
        )
    notes = (f"{len(empty)} of the {len(pages)} pages of {name} hold no text, only images",) if empty else ()
    return "\n\n".join(text.strip("\n") for text in pages if text.strip()), notes


def _pages(file: BinaryIO, name: str) -> list[str]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    try:
        reader = PdfReader(file)
        if len(reader.pages) > MAX_PAGES:
            raise Unsupported(f"{name} has more than {MAX_PAGES} pages")
        texts: list[str] = []
        n_chars = 0
        for page in reader.pages:
            texts.append(_clean(page.extract_text()))
            n_chars += len(texts[-1])
            if n_chars > MAX_CHARS:
                raise Unsupported(f"{name} holds more text than any context")
        return texts
    except (DependencyError, FileNotDecryptedError) as error:
        raise Unsupported(
            f"{name} is encrypted", hint="`qpdf --decrypt --password=… IN.pdf OUT.pdf` makes an open copy"
        ) from error


def _clean(text: str) -> str:
    """Leave out what is no text: zero bytes, and halves of surrogate pairs."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")
