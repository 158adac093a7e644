"""Text of an answer: any split into pieces gives the same text, cut at the first stop string."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.text import TextStream


def stream(pieces: list[bytes], stops: list[str] | tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    """Push all pieces; return what came out after each, the end included, and the stop string."""
    text = TextStream(stops)
    return [*(text.push(piece) for piece in pieces), text.finish()], text.stopped_by


def expected(content: bytes, stops: list[str] | tuple[str, ...] = ()) -> str:
    text = content.decode("utf-8", "replace")
    return text[: min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))]


def split(content: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[begin:end] for begin, end in pairwise(bounds)]


_letters = st.text(st.sampled_from("aabcé€😀\n"), max_size=12)
_stops = st.lists(st.text(st.sampled_from("aabcé€😀\n"), max_size=4), max_size=4)
_cuts = st.lists(st.integers(0, 100), max_size=12)


@given(text=_letters, stops=_stops, cuts=_cuts)
def test_however_it_is_split_text_is_cut_at_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    content = text.encode()
    parts, stopped_by = stream(split(content, cuts), stops)
    assert "".join(parts) == expected(content, stops)
    assert (stopped_by is None) == (expected(content, stops) == text and not any(s and s in text for s in stops))
    assert stopped_by is None or text[len("".join(parts)) :].startswith(stopped_by)


@given(content=st.binary(max_size=20) | _letters.map(str.encode), stops=_stops, cuts=_cuts)
def test_what_is_not_utf8_is_replaced_however_it_is_split(content: bytes, stops: list[str], cuts: list[int]) -> None:
    stops = [*stops, "\ufffd\ufffd"]
    assert "".join(stream(split(content, cuts), stops)[0]) == expected(content, stops)
    assert "".join(stream(split(content, cuts))[0]) == expected(content)


@given(text=_letters, stops=_stops, cuts=_cuts)
def test_no_more_is_held_back_than_may_be_a_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    """What has come out is always all but the longest end with which a stop string begins."""
    told, out, came = TextStream(stops), "", b""
    for piece in split(text.encode(), cuts):
        out += told.push(piece)
        came += piece
        if told.stopped_by is not None:
            break
        whole = came.decode("utf-8", "ignore")
        beginnings = [stop[:n] for stop in stops for n in range(1, len(stop))]
        assert whole == out + max((start for start in beginnings if whole.endswith(start)), key=len, default="")


def test_text_comes_at_once_where_nothing_can_stop_it() -> None:
    assert stream([b"Hel", b"lo", b" \xe2\x82", b"\xac"]) == (["Hel", "lo", " ", "€", ""], None)


def test_the_beginning_of_a_stop_is_held_back_until_it_is_none() -> None:
    assert stream([b"a", b"<|", b"end", b"less", b"!"], ["<|end|>"]) == (["a", "", "", "<|endless", "!", ""], None)


def test_after_a_stop_nothing_comes() -> None:
    assert stream([b"a<", b"|end|>b", b"c"], ["<|end|>"]) == (["a", "", "", ""], "<|end|>")


def test_what_is_held_at_the_end_comes_out() -> None:
    assert stream([b"a<|en"], ["<|end|>"]) == (["a", "<|en"], None)
    assert stream([b"a\xe2\x82"], ["x"]) == (["a", "\ufffd"], None)


@pytest.mark.parametrize("pieces", [[b"abc"], [b"ab", b"c"], [b"a", b"b", b"c"]])
def test_the_stop_that_begins_first_counts_even_if_another_ends_first(pieces: list[bytes]) -> None:
    assert stream(pieces, ["b", "abc"]) == ([""] * (len(pieces) + 1), "abc")


def test_a_stop_inside_another_that_never_ends_still_counts() -> None:
    assert stream([b"ab", b"x"], ["b", "abc"]) == (["", "a", ""], "b")
    assert stream([b"ab"], ["b", "abc"]) == (["", "a"], "b")


def test_an_empty_stop_stops_nothing() -> None:
    assert stream([b"abc"], ["", "x"]) == (["abc", ""], None)
