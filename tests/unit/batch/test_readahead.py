"""Rows that are read in a thread of their own."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from owm.batch.readahead import MOST_GATHER_SECONDS, ReadAhead
from owm.batch.row import Row
from owm.errors import OwmError


def _rows(n: int | None = None) -> Iterator[Row]:
    return (Row(i, f"#{i}") for i in (itertools.count(1) if n is None else range(1, n + 1)))


def _numbers(rows: list[Row]) -> list[int]:
    return [row.number for row in rows]


def _wait_for_end_of_thread() -> None:
    latest = time.monotonic() + 5
    while any(thread.name == "owm-rows" for thread in threading.enumerate()):
        assert time.monotonic() < latest
        time.sleep(0.01)


def test_rows_come_in_order_and_their_end_is_known_with_the_last() -> None:
    ahead = ReadAhead(_rows(5), 10)
    assert _numbers(ahead.take(3, waits=True)) == [1, 2, 3]
    assert not ahead.is_over
    assert _numbers(ahead.take(9, waits=True)) == [4, 5]
    assert ahead.is_over
    assert ahead.take(9, waits=True) == []


def test_no_more_are_read_than_there_is_room_for() -> None:
    n_read = 0

    def rows() -> Iterator[Row]:
        nonlocal n_read
        for row in _rows():
            n_read += 1
            yield row

    ahead = ReadAhead(rows(), 4)
    time.sleep(0.2)
    assert n_read <= 5
    assert _numbers(ahead.take(4, waits=True)) == [1, 2, 3, 4]
    ahead.stop()
    _wait_for_end_of_thread()
    assert n_read <= 10


def test_who_does_not_wait_gets_what_is_there() -> None:
    goes_on = threading.Event()

    def rows() -> Iterator[Row]:
        yield Row(1, "#1")
        goes_on.wait(10)
        yield Row(2, "#2")

    ahead = ReadAhead(rows(), 10)
    assert _numbers(ahead.take(5, waits=True)) == [1]
    assert ahead.take(5, waits=False) == []
    assert not ahead.is_over
    assert ahead.take(5, waits=True, is_given_up=lambda: True) == []
    threading.Timer(0.2, goes_on.set).start()
    assert _numbers(ahead.take(5, waits=True)) == [2]
    assert ahead.is_over


def test_rows_that_trickle_are_given_out_before_there_are_enough() -> None:
    def rows() -> Iterator[Row]:
        for row in _rows():
            time.sleep(0.01)
            yield row

    ahead = ReadAhead(rows(), 1000)
    try:
        began = time.monotonic()
        found = ahead.take(1000, waits=True)
        assert 1 <= len(found) < 500
        assert time.monotonic() - began < MOST_GATHER_SECONDS + 3
    finally:
        ahead.stop()


def test_what_reading_raises_comes_after_the_rows_before_it() -> None:
    def rows() -> Iterator[Row]:
        yield from _rows(2)
        raise OwmError("the disk is gone")

    ahead = ReadAhead(rows(), 10)
    assert _numbers(ahead.take(2, waits=True)) == [1, 2]
    with pytest.raises(OwmError, match="the disk is gone"):
        ahead.take(2, waits=True)
    assert ahead.is_over
