"""Work in a decoding thread that is interrupted: what it uses is not freed before it has ended."""

import os
import signal
import threading
import time

import pytest

from owm.engine.generate import decoded


@pytest.mark.parametrize("n_signals", [1, 2, 3])
def test_however_often_it_is_interrupted_the_work_is_waited_for(n_signals: int) -> None:
    began, is_cancelled, has_ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert is_cancelled.wait(10)
        time.sleep(0.2)  # a decode takes its time to stop
        has_ended.set()

    def interrupt() -> None:
        assert began.wait(10)
        for _ in range(n_signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.03)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    sender = threading.Thread(target=interrupt)
    try:
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            decoded(work, is_cancelled.set)
        assert has_ended.is_set()
    finally:
        sender.join(10)
        signal.signal(signal.SIGINT, handler)
