"""What is asked: material and instruction apart, and which of the texts may be cut."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.asked import Asked, Turn

SYSTEM = {"role": "system", "content": "be brief"}


def conversation(*contents: str, first: str = "user") -> tuple[Turn, ...]:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return tuple({"role": roles[i % 2], "content": content} for i, content in enumerate(contents))


def test_material_stands_above_the_instruction() -> None:
    asked = Asked("Why?", "a log", turns=(SYSTEM,))
    assert asked.messages == [SYSTEM, {"role": "user", "content": "a log\n\nWhy?"}]


@pytest.mark.parametrize(("material", "instruction", "question"), [("a", " \n", "a"), ("\n", "b", "b"), ("", "", "")])
def test_what_is_blank_is_left_out(material: str, instruction: str, question: str) -> None:
    asked = Asked(instruction, material)
    assert asked.question == question
    assert len(asked.messages) == bool(question)


def test_material_can_stand_inside_the_instruction_and_more_than_once() -> None:
    asked = Asked(material="x", around=("Is ", " more than ", "?"))
    assert asked.question == "Is x more than x?"
    assert asked.with_cut(["y"]).question == "Is y more than y?"


def test_only_material_is_cut_where_there_is_any() -> None:
    asked = Asked("Why?", "a log", turns=(SYSTEM, *conversation("hello", "hi")))
    assert asked.cuttable == ("a log",)
    assert asked.with_cut(["log"]).messages[1:] == [*asked.messages[1:3], {"role": "user", "content": "log\n\nWhy?"}]


def test_without_material_the_conversation_is_cut_and_never_its_system_prompt() -> None:
    asked = Asked("Why?", turns=(SYSTEM, *conversation("hello", "hi")))
    assert asked.cuttable == ("hello", "hi")
    cut = asked.with_cut(["llo", "hi"])
    assert [turn["content"] for turn in cut.messages] == ["be brief", "llo", "hi", "Why?"]


def test_without_both_the_question_itself_is_cut() -> None:
    asked = Asked("Why is it so?", turns=(SYSTEM,))
    assert asked.cuttable == ("Why is it so?",)
    assert asked.with_cut(["so?"]).messages == [SYSTEM, {"role": "user", "content": "so?"}]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.booleans())
def test_emptied_turns_go_in_pairs_so_roles_still_alternate(is_emptied: list[bool], has_system: bool) -> None:
    turns = conversation(*(str(i) for i in range(len(is_emptied))))
    asked = Asked("why?", turns=((SYSTEM, *turns) if has_system else turns))
    cut = asked.with_cut(["" if gone else text for gone, text in zip(is_emptied, asked.cuttable, strict=True)])
    spoken = [turn for turn in cut.turns if turn is not SYSTEM]
    roles = [turn["role"] for turn in spoken]
    assert all(before != after for before, after in pairwise(roles))
    kept = [turn["content"] for gone, turn in zip(is_emptied, turns, strict=True) if not gone]
    assert [turn["content"] for turn in spoken if turn["content"]] == kept
    assert (len(turns) - len(spoken)) % 2 == 0
    assert not any(not a["content"] and not b["content"] for a, b in pairwise(spoken))


def test_a_turn_that_was_empty_all_along_stays() -> None:
    asked = Asked("why?", turns=conversation("", "", "hello", "hi"))
    assert asked.with_cut(["", "", "hello", ""]).turns == replace(asked, turns=conversation("", "", "hello", "")).turns
