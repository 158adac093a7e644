"""Every error that owm raises on purpose.

An error is one sentence (`str(error)`, no full stop), an optional `hint` that says what to do next, and data
attributes for programs. Exit codes belong to the command line (`owm/cli/failures.py`), not here.

    OwmError
    ├── UsageError                       the request contradicts itself or the model
    │   └── PromptTooLong                more tokens than the context holds
    ├── NotFound
    │   ├── ModelNotFound                no such name, repo, revision or file
    │   └── QuantNotFound                the repo is there, the asked-for quant is not
    ├── NetworkError
    │   ├── SourceUnreachable            no DNS, refused, timed out, proxy said no, offline
    │   ├── TransferFailed               the transfer broke off and every retry too
    │   └── AccessDenied                 gated or private: a licence or a token is missing
    ├── Unsupported                      a format, source or architecture that owm cannot use
    │   └── NoUsableFile                 the repo holds no model file that owm can run
    ├── NotEnough
    │   ├── NotEnoughDisk
    │   └── NotEnoughMemory
    ├── Damaged                          the bytes are not what they claim to be
    │   ├── MalformedFile                not of its format, truncated, impossible sizes
    │   ├── ChecksumMismatch
    │   └── TemplateError                the model's chat template fails or does what no template should
    │       └── TemplateRefusal          the template refuses the conversation, in its own words
    ├── StoreError                       the store cannot be read or written
    └── EngineError                      llama.cpp refused to load or to decode
"""

from pathlib import Path

MAX_CHARS = 2000  # of a message


class OwmError(Exception):
    """Base of the tree: a message of one sentence, and a hint for the person who reads it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        # It quotes what strangers' files say, and that may be megabytes.
        super().__init__(message if len(message) <= MAX_CHARS else f"{message[:MAX_CHARS]}…")
        self.hint = hint


class UsageError(OwmError):
    """The request contradicts itself or the model."""


class PromptTooLong(UsageError):
    """The prompt has more tokens than the context holds; nothing was cut."""

    def __init__(self, message: str, *, n_prompt: int, n_ctx: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx


class NotFound(OwmError):
    """Something that was named does not exist."""


class ModelNotFound(NotFound):
    """No such model name, repo, revision or file."""

    def __init__(self, message: str, *, ref: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ref = ref


class QuantNotFound(NotFound):
    """The repo exists but not in the quantization type that was asked for."""

    def __init__(self, message: str, *, quant: str, available: tuple[str, ...], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.quant = quant
        self.available = available


class NetworkError(OwmError):
    """Something that needs the network did not get through."""


class SourceUnreachable(NetworkError):
    """A source could not be reached at all; another source may be tried."""


class TransferFailed(NetworkError):
    """A transfer broke off and every retry too; what arrived is kept for the next try."""


class AccessDenied(NetworkError):
    """The source answered 401 or 403: a licence to accept or a token is missing."""


class Unsupported(OwmError):
    """A format, source or architecture that owm cannot use."""


class NoUsableFile(Unsupported):
    """The repo exists but holds no model file that owm can run."""

    def __init__(self, message: str, *, files: tuple[str, ...], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.files = files


class NotEnough(OwmError):
    """Something needs more room than there is."""

    def __init__(self, message: str, *, needed: int, free: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.needed = needed
        self.free = free


class NotEnoughDisk(NotEnough):
    """Too little free space; `needed` and `free` are bytes."""


class NotEnoughMemory(NotEnough):
    """Too little memory; `needed` and `free` are bytes."""


class Damaged(OwmError):
    """The bytes are not what they claim to be, or are not to be trusted."""


class MalformedFile(Damaged):
    """A file breaks its format: wrong magic, truncated, impossible sizes."""

    def __init__(self, path: Path, cause: str, *, kind: str = "GGUF", hint: str | None = None) -> None:
        super().__init__(f"{path.name} is not a usable {kind} file: {cause}", hint=hint)
        self.path = path
        self.cause = cause
        self.kind = kind


class ChecksumMismatch(Damaged):
    """A file's content differs from the published checksum."""

    def __init__(self, message: str, *, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


class TemplateError(Damaged):
    """The model's chat template fails, or tries what no template should."""


class TemplateRefusal(TemplateError):
    """The template refuses this conversation, in its own words (a role it does not know, turns out of order)."""


class StoreError(OwmError):
    """The store cannot be read or written."""


class EngineError(OwmError):
    """llama.cpp refused to load a model, to make a context or to decode."""
