"""Ctrl-C in a place from which nothing can be raised."""

import ctypes
import os
import signal
import sys
import time
import weakref

import pytest

from owm.cli.interruption import kept_interruptions


def test_a_ctrl_c_that_python_could_not_raise_comes_once_more() -> None:
    class Thing:
        pass

    def interrupted(_reference: object) -> None:
        raise KeyboardInterrupt

    things = [Thing()]
    reference = weakref.ref(things[0], interrupted)

    def lose_one() -> None:
        things.clear()
        time.sleep(5)

    before = sys.unraisablehook
    with kept_interruptions(), pytest.raises(KeyboardInterrupt):
        lose_one()
    assert reference() is None
    assert sys.unraisablehook is before


def test_a_ctrl_c_within_a_callback_of_c_comes_once_more() -> None:
    def interrupted(_first: object, _second: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(interrupted)
    sort = ctypes.CDLL(None).qsort
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def lose_one() -> None:
        sort((ctypes.c_int * 2)(2, 1), ctypes.c_size_t(2), ctypes.c_size_t(4), callback)
        time.sleep(5)

    try:
        with kept_interruptions(), pytest.raises(KeyboardInterrupt):
            lose_one()
    finally:
        signal.signal(signal.SIGINT, handler)
