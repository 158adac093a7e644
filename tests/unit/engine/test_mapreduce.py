"""Material read in parts: the parts are the material, the answers come back labelled, and levels come to an end."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine import context, mapreduce
from owm.engine.asked import Asked
from owm.engine.mapreduce import Plan, Reduced
from owm.engine.model import Model, Prompt
from owm.engine.request import Request
from owm.engine.sampling import Sampling
from owm.engine.tokenized import TokenizedText
from owm.engine.tuning import Tuning
from owm.errors import NotEnoughMemory, PromptTooLong, UsageError
from owm.events import Advanced, Event, Finished, Started
from owm.hardware.probe import Memory
from support.scripted_gguf import write_scripted_gguf

ANSWER = "it is the tin"
N_ANSWER = 32
SYSTEM = {"role": "system", "content": "be brief"}
TEXT = "".join(f"This is line {i} of the log.\n" + "\n" * (i % 5 == 4) for i in range(60))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("mapreduce")
    with Model([write_scripted_gguf(folder / "scripted.gguf", ANSWER)], n_gpu_layers=0) as model:
        yield model


def planned(model: Model, asked: Asked, ctx: int | None = None, instruction: str = "What is it?") -> Plan:
    return mapreduce.plan(model, asked, instruction, render=model.chat_prompt, asked_ctx=ctx, n_answer=N_ANSWER)


def executed(model: Model, plan: Plan, events: list[Event] | None = None, **options: Any) -> Reduced:
    def request(prompt: Prompt, n_answer: int) -> Request:
        return Request(prompt.tokens, Sampling(temp=0), n_answer)

    return mapreduce.execute(
        model,
        plan,
        request=request,
        render=model.chat_prompt,
        tuning=Tuning(n_threads=1),
        sink=(events if events is not None else []).append,
        **{"max_tokens": 40, "asked_ctx": None, **options},
    )


@given(
    st.text(alphabet=st.sampled_from("ab .\né漢😀"), min_size=1, max_size=400),
    st.integers(mapreduce.MIN_PART, 120),
    st.lists(st.integers(1, 5), min_size=1, max_size=400),
)
def test_the_parts_together_are_the_text_and_none_is_too_long(text: str, n_most: int, lengths: list[int]) -> None:
    raw, pieces = text.encode(), []
    while raw:
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(raw[:length])
        raw = raw[length:]
    material = TokenizedText(text, range(len(pieces)), pieces.__getitem__)
    parts = list(mapreduce._split(material, n_most))
    assert "".join(part for part, _ in parts) == text
    assert sum(n for _, n in parts) == len(pieces)
    assert all(part and 0 < n <= n_most for part, n in parts)
    assert len(parts) <= -(-len(pieces) // n_most) * 8 // 7 + 1


def test_parts_end_at_paragraphs_where_one_is_near() -> None:
    text = ("word " * 18 + "\n\n") * 30
    material = TokenizedText(text, range(len(text)), lambda i: text[i].encode())
    parts = [part for part, _ in mapreduce._split(material, 600)]
    assert all(part.endswith("\n\n") for part in parts)
    assert len(set(map(len, parts))) <= 2


def test_the_plan_says_how_many_parts_and_of_how_many_tokens(model: Model) -> None:
    plan = planned(model, Asked("Sum up.", TEXT, turns=(SYSTEM,)))
    assert "".join(part.text for part in plan.parts) == TEXT
    assert all(part.text.endswith("\n") for part in plan.parts)
    for part in plan.parts:
        assert part.prompt == model.chat_prompt([SYSTEM, {"role": "user", "content": f"{part.text}\n\nWhat is it?"}])
        assert len(part.prompt.tokens) + N_ANSWER <= plan.n_ctx == 512
    n = len(TEXT.encode())
    most = max(part.n_tokens for part in plan.parts)
    assert plan.summary == f"reading {n} tokens of material in {len(plan.parts)} parts of at most {most}, 4 at once"
    assert len(plan.parts) > 4


def test_answers_come_back_labelled_in_the_place_of_the_material(model: Model) -> None:
    asked = Asked("", TEXT[:900], around=("From ", " tell the sum."), turns=(SYSTEM,))
    events: list[Event] = []
    plan = planned(model, asked)
    reduced = executed(model, plan, events)
    n = len(plan.parts)
    assert 1 < n < 6
    assert reduced.answers == (ANSWER,) * n
    labelled = "\n\n".join(f"part {i} of {n}:\n{ANSWER}" for i in range(1, n + 1))
    assert reduced.asked.messages == [SYSTEM, {"role": "user", "content": f"From {labelled} tell the sum."}]
    assert reduced.n_levels == 1
    assert reduced.notes == ()
    assert reduced.n_prompt == sum(len(part.prompt.tokens) for part in plan.parts)
    assert reduced.n_generated == n * 5  # with the end of the turn
    assert events[0] == Started("reading the parts", n, "parts")
    done = [event for event in events if isinstance(event, Advanced) and event.done > 0]
    assert [event.done for event in done] == list(range(1, n + 1))
    assert {event.item for event in done} == {f"part {i} of {n}" for i in range(1, n + 1)}
    assert isinstance(events[-1], Finished)


def test_answers_that_do_not_fit_one_context_are_answered_in_levels(model: Model) -> None:
    plan = planned(model, Asked("Sum up.", TEXT * 6))
    n = len(plan.parts)
    whole = len("\n\n".join(f"part 10 of {n}:\n{ANSWER}" for _ in range(n)))
    assert whole > 512
    reduced = executed(model, plan)
    assert reduced.n_levels == 2
    assert len(reduced.answers) == n
    labels = re.findall(rf"^parts? (\d+)(?: to (\d+))? of {n}:$", reduced.asked.material, re.MULTILINE)
    spans = [(int(first), int(last or first)) for first, last in labels]
    assert spans[0][0] == 1
    assert spans[-1][1] == n
    assert all(before[1] + 1 == after[0] for before, after in pairwise(spans))
    assert len(spans) < n / 3
    assert len(model.chat_prompt(reduced.asked.messages).tokens) + 40 <= 512


def test_one_part_is_answered_and_put_together_all_the_same(model: Model) -> None:
    plan = planned(model, Asked("Sum up.", "a short text"))
    assert plan.summary == "reading 12 tokens of material in 1 part"
    assert executed(model, plan).asked.question == f"part 1 of 1:\n{ANSWER}\n\nSum up."


def test_an_answer_that_was_cut_and_one_that_is_missing_are_said(tmp_path: Path) -> None:
    with Model([write_scripted_gguf(tmp_path / "a.gguf", "the tin is in", loop_from=0)], n_gpu_layers=0) as model:
        reduced = executed(model, planned(model, Asked("Sum up.", TEXT[:600])))
    assert reduced.notes == ("2 of 2 answers to parts ended at their limit of 32 tokens",)
    with Model([write_scripted_gguf(tmp_path / "b.gguf", "")], n_gpu_layers=0) as model:
        reduced = executed(model, planned(model, Asked("Sum up.", TEXT[:600])))
    assert reduced.asked.material == "part 1 of 2:\n(no answer)\n\npart 2 of 2:\n(no answer)"
    assert reduced.notes == ("2 of 2 parts got no answer",)


def test_memory_decides_how_many_parts_run_at_once_and_how_long_they_are(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked("Sum up.", TEXT)
    allow(model, monkeypatch, 1100)
    assert planned(model, asked).n_parallel == 2
    allow(model, monkeypatch, 300)
    plan = planned(model, asked)
    assert (plan.n_parallel, plan.n_ctx) == (1, 300)
    assert executed(model, plan).answers[-1] == ANSWER
    allow(model, monkeypatch, 60)
    with pytest.raises(NotEnoughMemory, match="that is all that memory allows"):
        planned(model, asked)


def allow(model: Model, monkeypatch: pytest.MonkeyPatch, n_ctx: int) -> None:
    """Give this process memory for so many tokens."""
    needed = model.weights_bytes + context.COMPUTE_BYTES + n_ctx * context.kv_bytes_per_token(model.header)
    monkeypatch.setattr(mapreduce.probe, "memory", lambda: Memory(int(needed / context.MEMORY_SHARE) + 1, 0))


@pytest.mark.parametrize(
    ("asked", "instruction", "message"),
    [
        (Asked("Sum up."), "What is it?", "nothing to read in parts"),
        (Asked("Sum up.", " \n"), "What is it?", "nothing to read in parts"),
        (Asked("", "text"), "What is it?", "needs a PROMPT too"),
        (Asked("Sum up.", "text"), " ", "needs an instruction for the parts"),
    ],
)
def test_what_makes_no_sense_in_parts_is_refused(model: Model, asked: Asked, instruction: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(model, asked, instruction=instruction)


def test_instructions_that_leave_no_room_are_refused(model: Model) -> None:
    for asked, instruction in ((Asked("Sum up.", TEXT), "x" * 450), (Asked("x" * 450, TEXT), "What is it?")):
        with pytest.raises(PromptTooLong, match="too little room for parts"):
            planned(model, asked, instruction=instruction)
    with pytest.raises(PromptTooLong, match="a context of 120 tokens") as caught:
        planned(model, Asked("Sum up.", TEXT), ctx=120)
    assert "`--ctx-size`" in str(caught.value.hint)


def test_two_answers_that_do_not_fit_together_are_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    words = " ".join(
        "abcdefghijklmnopqrstuvwxyz"[i:] + "x" * i for i in range(12)
    )  # one token a word when made, one a byte when read
    with Model([write_scripted_gguf(tmp_path / "wordy.gguf", words, loop_from=0)], n_gpu_layers=0) as model:
        plan = planned(model, Asked("Sum up.", TEXT))
        with pytest.raises(PromptTooLong, match="two answers to parts have"):
            executed(model, plan)
