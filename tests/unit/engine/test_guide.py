"""What steers answers: thoughts apart from them, budgets, given beginnings, constraints, and probabilities told."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.engine.constrain import Constraint
from owm.engine.model import Model
from owm.engine.reasoning import detect
from owm.engine.sampling import Sampling
from owm.engine.scheduler import Chunk, FinishReason, Request, Scheduler
from owm.errors import EngineError, UsageError
from owm.native.logits import LogitReader
from support.scripted_gguf import END, HARMONY, write_scripted_gguf
from support.tiny_gguf import CHATML, write_tiny_gguf

GREEDY = Sampling(temp=0)
THINKS = CHATML + "{# <think> </think> #}"
HARMONIC = (
    "{# <|channel|> #}{% for message in messages %}{{ '<|start|>' + message.role + '<|message|>' + message.content"
    " + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
YES_OR_NO = Constraint.choice(["yes", "no"])
USER = [{"role": "user", "content": "Why?"}]


@contextmanager
def scripted(folder: Path, *script: Any, **options: Any) -> Iterator[Model]:
    options.setdefault("template", THINKS)
    if options["template"] == THINKS:
        options.setdefault("marks", ("<think>", "</think>"))
    with Model([write_scripted_gguf(folder / "scripted.gguf", *script, **options)], n_gpu_layers=0) as model:
        yield model


def run(scheduler: Scheduler) -> list[Chunk]:
    chunks: list[Chunk] = []
    for _ in range(10_000):
        if scheduler.is_idle:
            return chunks
        chunks += scheduler.step()
    raise AssertionError("the scheduler does not end")


def answer(model: Model, sampling: Sampling = GREEDY, prompt: list[int] | None = None, **asked: Any) -> list[Chunk]:
    source = model.native.chat_template()
    with model.scheduler(400, n_threads=1) as scheduler:
        made = prompt or model.chat_prompt(USER).tokens
        scheduler.submit(Request(made, sampling, reasoning=detect(source) if source else None, **asked))
        return run(scheduler)


def text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def thought(chunks: list[Chunk]) -> str:
    return "".join(chunk.reasoning for chunk in chunks)


def timings(chunks: list[Chunk]) -> Any:
    assert chunks[-1].timings is not None
    return chunks[-1].timings


# -- thoughts ----------------------------------------------------------------------------------------------------------


def test_a_thought_is_no_text_and_its_tokens_are_counted(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>\nI stop here\n</think>\n\nYes it is") as model:
        chunks = answer(model, stops=("stop",))
    assert (thought(chunks), text(chunks)) == ("I stop here", "Yes it is")
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert chunks[-1].stopped_by is None, "stop strings mean nothing in a thought"
    # A line break, three words, a line break, the closing mark.
    assert timings(chunks).n_reasoning == 6
    assert timings(chunks).n_generated == 1 + 6 + 2 + 3 + 1


def test_a_stop_string_ends_the_answer_after_a_thought(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>it is</think>Yes it is so") as model:
        chunks = answer(model, stops=(" is",))
    assert (thought(chunks), text(chunks), chunks[-1].stopped_by) == ("it is", "Yes it", " is")


def test_a_prompt_may_end_inside_a_thought(tmp_path: Path) -> None:
    opened = THINKS.replace("assistant\n", "assistant\n<think>\n")
    with scripted(tmp_path, "so so\n</think>\n\nYes", template=opened, marks=("<think>", "</think>")) as model:
        chunks = answer(model, thinks_at_start=True)
    assert (thought(chunks), text(chunks)) == ("so so", "Yes")


def test_a_thought_that_never_ends_is_cut_with_its_count(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think> one two three", loop_from=1) as model:
        chunks = answer(model, max_tokens=30)
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert text(chunks) == ""
    assert timings(chunks).n_reasoning == 29
    assert thought(chunks).startswith("one two three one")


@pytest.mark.parametrize("budget", [0, 1, 4, 9])
def test_a_budget_closes_the_thought_and_the_answer_follows(tmp_path: Path, budget: int) -> None:
    with scripted(tmp_path, "<think> one two three", loop_from=1, after={"</think>\n\n": "Yes"}) as model:
        chunks = answer(model, think_budget=budget, max_tokens=60)
    assert text(chunks) == "Yes"
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert len(thought(chunks).split()) == budget
    assert timings(chunks).n_reasoning == budget + 2  # and what closes it


def test_a_thought_shorter_than_its_budget_is_left_alone(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>one two</think>Yes") as model:
        assert text(answer(model, think_budget=3)) == "Yes"


# -- constraints -------------------------------------------------------------------------------------------------------


def test_the_answer_keeps_to_the_constraint_and_the_thought_does_not(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>maybe</think>maybe") as model:
        chunks = answer(model, constraint=YES_OR_NO)
    assert thought(chunks) == "maybe"
    assert text(chunks) in ("yes", "no")
    assert chunks[-1].finish_reason is FinishReason.STOP


def test_a_model_that_can_think_need_not(tmp_path: Path) -> None:
    with scripted(tmp_path, "maybe") as model:
        chunks = answer(model, constraint=YES_OR_NO)
    assert (thought(chunks), text(chunks) in ("yes", "no")) == ("", True)


def test_what_begins_like_a_thought_is_made_one(tmp_path: Path) -> None:
    """Where the mark is no single token, the model may begin to write it and go on otherwise."""
    with scripted(tmp_path, ["<", "t", " en"], marks=(), after={"<think>\n": "so</think>no"}) as model:
        chunks = answer(model, constraint=YES_OR_NO, max_tokens=40)
    assert (thought(chunks), text(chunks)) == ("so", "no")


def test_a_turn_that_ends_in_its_thought_is_answered_all_the_same(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>I give up") as model:
        chunks = answer(model, constraint=YES_OR_NO)
        assert text(answer(model)) == ""
    assert thought(chunks) == "I give up"
    assert text(chunks) in ("yes", "no")


def test_a_budget_and_a_constraint(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think> one two three", loop_from=1, after={"n=": ["1", "7"]}) as model:
        chunks = answer(model, constraint=Constraint.regex("n=[0-9][0-9]"), think_budget=5, max_tokens=40)
    assert (len(thought(chunks).split()), text(chunks)) == (5, "n=17")
    assert chunks[-1].finish_reason is FinishReason.STOP


def test_harmony_channels_come_before_a_constraint(tmp_path: Path) -> None:
    script = "<|channel|>analysis<|message|>so so<|end|><|start|>assistant<|channel|>final<|message|>maybe<|return|>"
    with scripted(tmp_path, script, template=HARMONIC, control=HARMONY, eos="<|return|>") as model:
        free = answer(model)
        chunks = answer(model, constraint=YES_OR_NO)
        budgeted = answer(model, constraint=YES_OR_NO, think_budget=1)
    assert (thought(free), text(free)) == ("so so", "maybe")
    assert thought(chunks) == "so so"
    assert text(chunks) in ("yes", "no")
    assert (thought(budgeted), text(budgeted) in ("yes", "no")) == ("so", True)


def test_a_constraint_that_is_met_ends_the_answer(tmp_path: Path) -> None:
    with scripted(tmp_path, "yes and so on", template=CHATML) as model:
        chunks = answer(model, constraint=YES_OR_NO)
        exact = answer(model, constraint=YES_OR_NO, max_tokens=timings(chunks).n_generated)
        cut = answer(model, constraint=Constraint.regex("yes and no"), max_tokens=3)
    assert text(chunks) == "yes"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [FinishReason.STOP]
    assert exact[-1].finish_reason is FinishReason.STOP, "the last token that there may be completes it"
    assert cut[-1].finish_reason is FinishReason.LENGTH


def test_tokens_without_a_choice_are_fed_at_once(tmp_path: Path) -> None:
    with scripted(tmp_path, "x", template=CHATML) as model, model.scheduler(200, n_threads=1) as scheduler:
        scheduler.submit(Request(model.chat_prompt(USER).tokens, GREEDY, constraint=Constraint.regex("a{40}(b|c)d{9}")))
        n_steps = 0
        chunks: list[Chunk] = []
        while not scheduler.is_idle:
            chunks += scheduler.step()
            n_steps += 1
    assert text(chunks) in ("a" * 40 + "b" + "d" * 9, "a" * 40 + "c" + "d" * 9)
    assert n_steps == 1, "all but one letter was known"
    assert timings(chunks).n_generated == 50


def test_an_answer_without_any_choice_needs_no_decode(tmp_path: Path) -> None:
    with scripted(tmp_path, "x", template=CHATML) as model:
        chunks = answer(model, constraint=Constraint.choice(["only this"]))
        assert text(answer(model)) == "x"
    assert (text(chunks), chunks[-1].finish_reason) == ("only this", FinishReason.STOP)


def test_the_likeliest_token_is_the_likeliest_allowed_one(tmp_path: Path) -> None:
    """Greedy under a constraint is the arg max over the mask, recomputed here from the logits of a plain read."""
    constraint = Constraint.regex("[a-f]{12}")
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")]) as model:
        prompt = model.chat_prompt(USER).tokens
        for sampling in (GREEDY, Sampling(temp=0, repeat_penalty=1.0001), Sampling(temp=1, top_k=1)):
            chunks = answer(model, sampling, constraint=constraint)
            made = [chunk.token for chunk in chunks if chunk.token is not None]
            with LogitReader(model.native, n_ctx=400, n_threads=1) as reader:
                tokens = [*prompt, *made]
                rows = np.concatenate([piece.copy() for _, piece in reader.read(tokens, len(prompt) - 1, len(tokens))])
            matcher = constraint.matcher(model.vocabulary)
            for token, row in zip(made, rows, strict=False):
                assert token == np.where(matcher.mask(), row, -np.inf).argmax()
                matcher.accept(token)
            assert matcher.is_finished


@pytest.mark.parametrize("penalty", [1.0, 1.0001])
def test_what_a_constraint_forbids_falls_to_the_others_in_proportion(tmp_path: Path, penalty: float) -> None:
    n = 250
    chances = {"A": 0.6, "B": 0.24, "C": 0.16}
    with (
        scripted(tmp_path, [chances, "!"], template=CHATML) as model,
        model.scheduler(64, n_sequences=8, n_threads=1) as scheduler,
    ):
        prompt = model.chat_prompt(USER).tokens
        for seed in range(n):
            sampling = Sampling(temp=1, top_k=0, top_p=1, min_p=0, repeat_penalty=penalty, repeat_last_n=0, seed=seed)
            scheduler.submit(Request(prompt, sampling, constraint=Constraint.choice(["B!", "C!"])))
        counts = Counter(chunk.text for chunk in run(scheduler) if chunk.text in chances)
    assert counts.keys() == {"B", "C"}
    assert abs(counts["B"] - 0.6 * n) < 4 * math.sqrt(n * 0.6 * 0.4)


class Nothing:
    """A constraint that allows nothing."""

    is_finished = is_complete = False

    def matcher(self, vocabulary: object) -> "Nothing":
        return self

    def forced(self) -> list[int]:
        return []

    def allows(self, token: int) -> bool:
        return False

    def mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.zeros(1000, np.bool_)


def test_a_constraint_that_allows_nothing_is_an_error(tmp_path: Path) -> None:
    with scripted(tmp_path, "x", template=CHATML) as model, pytest.raises(EngineError, match="no token of the model"):
        answer(model, constraint=Nothing())


# -- given beginnings --------------------------------------------------------------------------------------------------


def test_an_answer_begins_as_it_is_told(tmp_path: Path) -> None:
    with scripted(tmp_path, "maybe", template=CHATML, after={"I say": " no"}) as model:
        chunks = answer(model, answer_prefix="I say")
        n_prompt = len(model.chat_prompt(USER).tokens)
    assert text(chunks) == "I say no"
    assert chunks[0].text == "I say", "it is shown before anything is decoded"
    assert timings(chunks).n_prompt == n_prompt + len("I say")
    assert timings(chunks).n_generated == 2


def test_a_beginning_comes_after_the_thought(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>so so</think>maybe", after={"I say": " no"}) as model:
        chunks = answer(model, answer_prefix="I say")
    assert (thought(chunks), text(chunks)) == ("so so", "I say no")


def test_a_beginning_and_a_constraint(tmp_path: Path) -> None:
    constraint = Constraint.regex("I say (yes|no)")
    with scripted(tmp_path, "<think>so so</think>maybe", after={"I say": " no"}) as model:
        assert text(answer(model, answer_prefix="I say", constraint=constraint)) == "I say no"
        with pytest.raises(UsageError, match="cannot begin so: I think"):
            answer(model, answer_prefix="I think", constraint=constraint)


def test_a_beginning_that_is_all_of_the_answer(tmp_path: Path) -> None:
    with scripted(tmp_path, "maybe", template=CHATML) as model:
        chunks = answer(model, answer_prefix="yes", constraint=YES_OR_NO)
    assert (text(chunks), chunks[-1].finish_reason) == ("yes", FinishReason.STOP)


def test_a_beginning_that_the_context_cannot_hold_ends_the_answer(tmp_path: Path) -> None:
    with scripted(tmp_path, "x", template=CHATML) as model:
        prompt = model.chat_prompt(USER).tokens
        with model.scheduler(len(prompt) + 3, n_threads=1) as scheduler:
            scheduler.submit(Request(prompt, GREEDY, answer_prefix="much too long"))
            last = run(scheduler)[-1]
    assert (last.finish_reason, last.hit_context_end) == (FinishReason.LENGTH, True)


# -- probabilities -----------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_model_whatever_is_sampled(tmp_path: Path) -> None:
    with scripted(tmp_path, [{"A": 0.7, "B": 0.2, "C": 0.1}, "!"], template=CHATML) as model:
        prompt = model.chat_prompt(USER).tokens
        for asked in ({}, {"constraint": Constraint.regex("C!")}):
            chunks = answer(model, Sampling(temp=2, top_k=1), prompt, n_logprobs=2, **asked)
            first = chunks[0].logprobs
            assert first is not None
            taken = {"A": 0.7, "C": 0.1}[chunks[0].text]
            assert first.taken.piece == chunks[0].text.encode()
            assert first.taken.logprob == pytest.approx(math.log(taken), abs=1e-3)
            assert [each.piece for each in first.likeliest] == [b"A", b"B"]
            assert [each.logprob for each in first.likeliest] == pytest.approx([math.log(0.7), math.log(0.2)], abs=1e-3)
            assert all(chunk.logprobs for chunk in chunks if chunk.text)
    assert first.as_json()["top_logprobs"][0] == {"token": "A", "logprob": -0.356675, "bytes": [65]}


def test_a_token_that_is_part_of_a_character_has_its_bytes(tmp_path: Path) -> None:
    with scripted(tmp_path, ["byte 195", "byte 169"], template=CHATML) as model:
        chunks = answer(model, n_logprobs=1)
    assert text(chunks) == "é"
    assert [chunk.logprobs.as_json()["bytes"] for chunk in chunks if chunk.logprobs] == [[195], [169]]


def test_thoughts_and_marks_have_no_probabilities(tmp_path: Path) -> None:
    with scripted(tmp_path, "<think>so so</think>\n\nno way") as model:
        chunks = answer(model, n_logprobs=3)
    told = [chunk for chunk in chunks if chunk.logprobs]
    assert [chunk.text for chunk in told] == ["no", " way"]
    assert all(len(chunk.logprobs.likeliest) == 3 for chunk in told if chunk.logprobs)


def test_more_probabilities_than_tokens_are_all_of_them(tmp_path: Path) -> None:
    with scripted(tmp_path, "a", template=CHATML) as model:
        first = answer(model, n_logprobs=10**6)[0].logprobs
        assert first is not None
        assert len(first.likeliest) == model.native.n_vocab
    assert math.fsum(math.exp(each.logprob) for each in first.likeliest) == pytest.approx(1)


def test_an_end_that_is_banned_is_told_with_its_probability(tmp_path: Path) -> None:
    with scripted(tmp_path, [{END: 0.75, "B": 0.25}], template=CHATML) as model:
        first = answer(model, Sampling(temp=0, ignore_eos=True), max_tokens=1, n_logprobs=1)[0]
    assert first.text == "B"
    assert first.logprobs is not None
    assert first.logprobs.taken.logprob == pytest.approx(math.log(0.25), abs=1e-3)
    assert first.logprobs.likeliest[0].logprob == pytest.approx(math.log(0.75), abs=1e-3)
