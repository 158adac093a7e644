"""Opening a model for a command: interruptible, with its adapters, and with what the user should know about it."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from owm.cli.output import Output
from owm.cli.terminal import visible

if TYPE_CHECKING:
    from owm.engine.adapter import AdapterChoice
    from owm.engine.model import Model
    from owm.store.model import StoredModel

T = TypeVar("T")


def open_model(
    stored: "StoredModel",
    out: Output,
    *,
    gpu_layers: int | None,
    adapters: "Sequence[AdapterChoice]",
    will_chat: bool = True,
) -> "Model":
    """Load a stored model and adapters; with `will_chat` its template gets ready meanwhile.

    Raises:
        OwmError: whatever loading can raise.
    """
    from owm.library.gate import admit, trusts

    admit(stored, adapters=[choice.path for choice in adapters], tell=out.note)
    from owm.engine.model import Model

    is_verified = stored.is_verified
    log = log_line if out.verbose else None
    model = interruptible(
        lambda: Model(
            stored.files,
            n_gpu_layers=gpu_layers,
            is_verified=is_verified,
            is_trusted=trusts(),
            will_chat=will_chat,
            log=log,
        )
    )
    try:
        for note in model.load_adapters(adapters) if adapters else ():
            out.warn(note)
        if model.unused_gpu:
            out.note(model.unused_gpu)
    except BaseException:
        model.close()
        raise
    return model


def interruptible(load: Callable[[], T]) -> T:
    """Run a long C call in a thread, so that Ctrl-C ends the program at once; nothing is being written meanwhile."""
    result: list[T] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            result.append(load())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=work, name="owm-load", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        os._exit(130)
    if problem:
        raise problem[0]
    return result[0]


def log_line(line: str) -> None:
    """Pass llama.cpp's log on; it prints metadata, which is a stranger's."""
    sys.stderr.write(visible(line))
