"""Thought and answer told apart: every format, every split, and nothing of a thought in an answer."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from owm.engine.marks import CONTROL, FORMATS, THINK
from owm.engine.model import Model
from owm.engine.reasoning import Parts, ReasoningFormat, ReasoningStream, closing_text, detect, split
from support.scripted_gguf import HARMONY, write_scripted_gguf

BY_NAME = {form.name: form for form in FORMATS}
FRAMED = [form for form in FORMATS if form.is_framed]
HARMONIC = BY_NAME["harmony"]

Pieces = list[tuple[str, bool]]


def cut(form: ReasoningFormat, text: str) -> Pieces:
    """Cut a turn, in which control tokens stand as themselves, into those and the text between."""
    names = "|".join(map(re.escape, form.control_texts)) or "(?!)"
    return [(piece, i % 2 == 1) for i, piece in enumerate(re.split(f"({names})", text)) if piece]


def shredded(pieces: Pieces, sizes: list[int]) -> Pieces:
    """Cut the texts again, into pieces of the given sizes; tokens come whole."""
    found: Pieces = []
    for text, is_token in pieces:
        while text:
            size = len(text) if is_token or not sizes else sizes[len(found) % len(sizes)]
            found.append((text[:size], is_token))
            text = text[size:]
    return found


def read(form: ReasoningFormat, pieces: Pieces, *, starts_inside: bool = False) -> Parts:
    stream = ReasoningStream(form, starts_inside=starts_inside)
    parts = [stream.push(text, is_token=is_token) for text, is_token in pieces] + [stream.finish()]
    return Parts("".join(part.reasoning for part in parts), "".join(part.answer for part in parts))


def soup(form: ReasoningFormat, words: str) -> st.SearchStrategy[str]:
    """Marks of a format, whole and in parts, among other text."""
    marks = [mark for mark in (*form.marks, form.header_end, form.opens, form.closes, form.lead) if mark]
    parts = [mark.replace(CONTROL, "")[: n + 2] for mark in marks for n in range(3)]
    return st.lists(st.sampled_from([*(mark.replace(CONTROL, "") for mark in marks), *parts, *words]), max_size=9).map(
        "".join
    )


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=6)
FORM = st.sampled_from(FORMATS)


@given(st.data(), FORM, SIZES, st.booleans())
def test_any_split_gives_the_same_parts(
    data: st.DataObject, form: ReasoningFormat, sizes: list[int], starts_inside: bool
) -> None:
    pieces = cut(form, data.draw(soup(form, "a \n<")))
    whole = read(form, pieces, starts_inside=starts_inside)
    assert read(form, shredded(pieces, sizes), starts_inside=starts_inside) == whole
    assert CONTROL not in whole.reasoning + whole.answer


@given(st.data(), FORM, SIZES, st.booleans())
def test_a_turn_as_models_write_it_comes_apart(
    data: st.DataObject, form: ReasoningFormat, sizes: list[int], starts_inside: bool
) -> None:
    text = st.text(alphabet="Tt <>/|[]\n", max_size=12)
    thought, answer = data.draw(text), data.draw(text)
    if form.is_framed:  # there, marks that are written out are text
        quoted = st.sampled_from([*form.control_texts, *(mark.replace(CONTROL, "") for mark in form.marks)])
        thought, answer = thought + data.draw(quoted), data.draw(quoted) + answer
    begin: Pieces = [] if starts_inside else cut(form, form.opens)
    pieces = [*begin, (thought, False), *cut(form, form.closes), (answer, False)]
    found = read(form, shredded(pieces, sizes), starts_inside=starts_inside)
    assert found.reasoning == thought.strip()
    assert found.answer.strip() == answer.strip()


@given(st.data(), FORM, SIZES)
def test_nothing_of_a_thought_is_in_the_answer(data: st.DataObject, form: ReasoningFormat, sizes: list[int]) -> None:
    thoughts = data.draw(st.lists(soup(form, "TT \n"), min_size=1, max_size=3))
    marks = [mark.replace(CONTROL, "") for mark in (*form.closings, *form.openings)]
    assume(not any(mark in thought for mark in marks for thought in thoughts))
    pieces = [piece for thought in thoughts for piece in (*cut(form, form.opens), (thought, False), *_closing(form))]
    pieces += [*cut(form, form.lead), ("the answer", False)]
    found = read(form, shredded(pieces, sizes))
    assert found.answer == "the answer"
    assert found.reasoning.count("T") == sum(thought.count("T") for thought in thoughts)


def _closing(form: ReasoningFormat) -> Pieces:
    """How a model ends a thought when another one follows."""
    return cut(form, form.closes.removesuffix(form.lead)) + (
        cut(form, form.frames[0].replace(CONTROL, "")) if form.frames else []
    )


@pytest.mark.parametrize(
    ("said", "reasoning", "answer"),
    [
        ("<think>\nhm\n</think>\n\nYes", "hm", "Yes"),
        ("<think>\n\n</think>\n\nYes", "", "Yes"),
        ("<think></think>Yes", "", "Yes"),
        (" \n<think>hm</think>Yes", "hm", "Yes"),
        ("<think>one</think>\n<think>two</think>\nYes", "one\n\ntwo", "Yes"),
        ("<think><think>hm</think>Yes", "hm", "Yes"),
        ("<think>a<think>b</think>c</think>Yes", "a<think>b</think>c", "Yes"),
        ("<think>the <think> mark</think>Yes", "the <think> mark", "Yes"),
        ("<think>the <think> mark</think>It is <think>x</think>.", "the <think> mark", "It is <think>x</think>."),
        ("<think>it never ends </thi", "it never ends </thi", ""),
        ("</think>\n\nYes", "", "Yes"),
        ("Write <think>x</think> so", "", "Write <think>x</think> so"),
        ("  Yes ", "", "  Yes "),
        ("<", "", "<"),
        ("<thin", "", "<thin"),
        ("", "", ""),
        ("  \n", "", "  \n"),
    ],
)
def test_what_counts_as_a_thought(said: str, reasoning: str, answer: str) -> None:
    assert split(THINK, said) == Parts(reasoning, answer)
    assert read(THINK, shredded([(said, False)], [1])) == Parts(reasoning, answer)


@pytest.mark.parametrize(
    ("said", "reasoning", "answer"),
    [
        ("hm\n</think>\n\nYes", "hm", "Yes"),
        ("<think>hm</think>Yes", "hm", "Yes"),
        ("\n\n<think>\nhm</think>Yes", "hm", "Yes"),
        ("</think>Yes", "", "Yes"),
        ("hm", "hm", ""),
    ],
)
def test_the_prompt_may_have_opened_the_thought(said: str, reasoning: str, answer: str) -> None:
    assert split(THINK, said, starts_inside=True) == Parts(reasoning, answer)


@pytest.mark.parametrize(
    ("name", "said", "reasoning", "answer"),
    [
        (
            "harmony",
            "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            "<|constrain|>json<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>Yes<|end|>more",
            "A\n\n{}",
            "Yes",
        ),
        ("harmony", "<|channel|>final <|constrain|>json<|message|>{}<|return|>", "", "{}"),
        ("harmony", "<|channel|>analysis<|message|>A<|channel|>final<|message|>Yes", "A", "Yes"),
        ("harmony", "<|channel|>commentary to=assistant<|channel|>final<|message|>Yes", "", "Yes"),
        ("harmony", "<|channel|>analysiss<|message|>A", "A", ""),
        ("harmony", "<|channel|>anal", "", ""),
        ("harmony", "<|message|>Yes", "", "Yes"),
        ("harmony", "Yes", "", "Yes"),
        ("muse-glimmer", " to=self<|message|>A<|eom|><|start|>assistant to=user<|message|>Yes<|eot|>", "A", "Yes"),
        ("gemma4", "<|channel>thought\nA\n<channel|>Yes<channel|>", "A", "Yes"),
        ("gemma4", "Yes<|channel>thought\nA<channel|>", "A", "Yes"),
        ("solar", "<|think|>A<|end|><|begin|>assistant<|content|>Yes<|end|>", "A", "Yes"),
        ("cohere-text", "<|START_THINKING|>A<|END_THINKING|><|START_TEXT|>Yes<|END_TEXT|>", "A", "Yes"),
        (
            "kimi-3",
            "<|open|>think<|sep|>A<|close|>think<|sep|><|open|>response<|sep|>Yes<|close|>response<|sep|>",
            "A",
            "Yes",
        ),
        ("apertus", "<|inner_prefix|>A<|inner_suffix|>Yes<|inner_prefix|>B<|inner_suffix|>, yes", "A\n\nB", "Yes, yes"),
        ("granite", "<think>A</think>\n<response>Yes </response>, yes</response>\n", "A", "Yes </response>, yes"),
        ("granite", "It is </response>", "", "It is </response>"),
        ("granite-phrases", "Here's my thought process: A\n\nHere is my response:\n\nYes", "A", "Yes"),
        ("apriel", "Here are my reasoning steps:\nA\n[BEGIN FINAL RESPONSE]\nYes\n[END FINAL RESPONSE]\n", "A", "Yes"),
        ("hunyuan", "<think>\nA\n</think>\n<answer>\n \nYes\n</answer>", "A", "Yes"),
        ("magistral", "[THINK]A[/THINK]Yes [THINK]", "A", "Yes [THINK]"),
        ("seed", "<seed:think>A</seed:think>Yes", "A", "Yes"),
    ],
)
def test_each_format_has_its_ways(name: str, said: str, reasoning: str, answer: str) -> None:
    assert split(BY_NAME[name], said) == Parts(reasoning, answer)
    assert read(BY_NAME[name], shredded(cut(BY_NAME[name], said), [1])) == Parts(reasoning, answer)


def test_text_is_given_out_as_soon_as_it_is_certain() -> None:
    stream = ReasoningStream(THINK)
    given_out = [stream.push(text) for text in ("<th", "ink>\n", "h", "m <", "b> \n", "</", "think>", "\n", "\nY", "<")]
    assert given_out[:7] == [Parts(), Parts(), Parts("h"), Parts("m"), Parts(" <b>"), Parts(), Parts()]
    assert given_out[7:] == [Parts(), Parts("", "Y"), Parts("", "<")]
    assert stream.finish() == Parts()


def test_the_state_is_that_of_the_next_token() -> None:
    stream = ReasoningStream(THINK)
    assert (stream.is_thinking, stream.is_undecided, stream.lead) == (False, True, "")
    stream.push("<think>hm")
    assert (stream.is_thinking, stream.is_undecided, stream.lead) == (True, False, "")
    stream.push("</think>")
    assert (stream.is_thinking, stream.is_undecided, stream.lead) == (False, True, "\n\n")
    stream.push("\n")
    assert (stream.is_undecided, stream.lead) == (True, "")
    stream.push("Yes")
    assert (stream.is_undecided, stream.is_finished) == (False, False)
    stream = ReasoningStream(HARMONIC)
    for text, is_token in cut(HARMONIC, "<|channel|>final<|message|>Yes<|end|>"):
        assert not stream.is_finished
        stream.push(text, is_token=is_token)
    assert stream.is_finished


def test_an_answer_that_is_given_may_hold_anything() -> None:
    stream = ReasoningStream(THINK)
    stream.push("<think>about <think></think>\n")
    assert stream.begin_answer() == Parts()
    assert stream.push('{"mark": "<think></think>"}') == Parts("", '{"mark": "<think></think>"}')
    stream = ReasoningStream(THINK)
    stream.push(" ")
    assert stream.begin_answer() == Parts("", " ")


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_thought_can_be_closed_by_force(form: ReasoningFormat) -> None:
    for starts_inside in (False, True):
        said = ("" if starts_inside else form.opens) + "T" + closing_text(form) + "Yes"
        assert split(form, said, starts_inside=starts_inside) == Parts("T", "Yes")
    assert split(form, form.empty + "Yes") == Parts("", "Yes")
    assert form.closes.endswith(form.lead)


@pytest.mark.parametrize("form", FRAMED, ids=lambda form: form.name)
def test_marks_that_are_written_out_are_text(form: ReasoningFormat) -> None:
    answer = "".join(form.control_texts)
    pieces: Pieces = [*cut(form, form.opens), ("T", False), *cut(form, form.closes), (answer, False)]
    assert read(form, pieces) == Parts("T", answer)


def test_names_are_unique_and_every_row_can_be_found() -> None:
    assert len(BY_NAME) == len(FORMATS)
    for form in FORMATS:
        assert detect(" ".join(form.evidence)) is form
    assert detect("{{ messages[0].content }}") is None


def test_the_marks_of_a_vocabulary_are_found(tmp_path: Path) -> None:
    path = write_scripted_gguf(tmp_path / "a.gguf", "Yes", marks=("<think>",))
    with Model([path], n_gpu_layers=0) as model:
        found = THINK.tokens(model.native)
        assert list(found.values()) == ["<think>"]  # the other one is letters here
        assert all(model.native.piece(token, special=True).decode() == text for token, text in found.items())
        assert HARMONIC.tokens(model.native) == {}
    path = write_scripted_gguf(tmp_path / "b.gguf", "Yes", control=HARMONY, eos="<|return|>", template=None)
    with Model([path], n_gpu_layers=0) as model:
        assert set(HARMONIC.tokens(model.native).values()) == set(HARMONIC.control_texts) <= set(HARMONY)
