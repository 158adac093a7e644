"""What `owm run` does with an open model: read in parts, answer, score, and write what comes of it."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from owm.cli.answering import DRAFT_BREAK, Answer, Screen, Shown, consume, consume_thought, plain
from owm.cli.failures import ExitCode, say
from owm.cli.output import Output, talk
from owm.engine.extract import first_code_block
from owm.library import answering

if TYPE_CHECKING:
    from owm.engine.asked import Asked
    from owm.engine.model import Model
    from owm.engine.overflow import Fitted
    from owm.engine.scoring import ChoiceScore
    from owm.engine.wishes import Wishes
    from owm.settings.layers import Setting
    from owm.store.model import StoredModel


class RunJob:
    """One question to one open model, up to what is written of its answers."""

    def __init__(
        self,
        model: "Model",
        stored: "StoredModel",
        wishes: "Wishes",
        out: Output,
        asked: "Asked",
        *,
        labels: Sequence[str],
        shown: str | None,
    ) -> None:
        self._model = model
        self._stored = stored
        self._wishes = wishes
        self._out = out
        self._asked = self._question = asked  # with --chunk, the answers to the parts take the material's place
        self._labels = labels
        self._shown: Shown | None = None if shown in (None, "off") else cast("Shown", shown)
        self._fitted: Fitted | None = None
        self._scores: list[ChoiceScore] = []

    def read_parts(self, instruction: str) -> None:
        """Put the answers to the parts of the material in its place."""
        from owm.cli.progress import progress

        plan = answering.plan_parts(self._model, self._asked, instruction, self._wishes)
        self._out.note(plan.summary)
        with progress(self._out) as sink:
            reduced = answering.read_parts(self._model, plan, self._wishes, sink=sink)
        for note in reduced.notes:
            self._out.note(note)
        self._asked = reduced.asked

    def answer(self, n_drafts: int, *, is_live: bool) -> list[Answer]:
        """Make the answers, live on stdout or not."""
        fitted = self._fitted = answering.fit(
            self._model, self._asked, self._wishes, n_drafts=n_drafts, labels=self._labels
        )
        for note in (*fitted.prompt.notes, *fitted.notes):
            self._out.note(note)
        wishes, size = self._wishes, fitted.size
        self._out.detail(
            f"running on {self._model.placement}; context {size.n_ctx} tokens; seed {wishes.sampling.seed}"
        )
        if size.capped_by and (wishes.n_ctx or wishes.max_tokens):
            self._out.note(f"the context is {size.n_ctx} tokens, all that the {size.capped_by} allows")
        screen = Screen(self._shown) if is_live else None
        if self._labels:
            return [self._choose(fitted, screen)]
        with answering.generation(self._model, fitted, wishes, n_drafts=n_drafts) as (generation, ids):
            answers = {number: Answer() for number in ids}
            consume(generation, answers, screen)
        return list(answers.values())

    def _choose(self, fitted: "Fitted", screen: Screen | None) -> Answer:
        """Take the likeliest label, after the thought if there is one."""
        answer, prompt = Answer(), list(fitted.prompt.tokens)
        if fitted.prompt.reasoning is not None and self._wishes.thinking.mode != "off":
            with answering.generation(self._model, fitted, self._wishes) as (generation, _):
                prompt += consume_thought(generation, answer, screen)
            if answer.timings is not None:  # it ended, or was ended, before it answered
                return answer
        began = time.perf_counter()
        self._scores = answering.choose(self._model, prompt, self._labels, self._wishes)
        answer.choose(self._scores, n_prompt=len(fitted.prompt.tokens), seconds=time.perf_counter() - began)
        if screen is not None:
            screen.write(answer.text)
            screen.end()
        return answer

    def report(self, answers: Sequence[Answer], drafts: int | None, *, extract: bool) -> int:
        """Write what is not written live, say what the user must know; return the exit code."""
        codes = [self._check(answer) for answer in answers]
        if extract and not self._out.as_json:
            codes += [self._extract(answer, is_first=i == 0) for i, answer in enumerate(answers)]
        if self._out.as_json:
            objects = [self._object(answer, number, extract=extract) for number, answer in enumerate(answers)]
            self._out.data(objects if drafts is not None else objects[0])
            if extract and not all("code" in each and each["code"] is not None for each in objects):
                codes.append(ExitCode.FAILURE)
        return max(codes)

    def _check(self, answer: Answer) -> int:
        """Say how an answer ended, where that matters; return the exit code for it."""
        if answer.finish_reason == "cancelled":
            return ExitCode.INTERRUPTED
        if answer.never_answered:
            say("error", f"the thought did not end within {answer.usage()['completion_tokens']} tokens")
            say("hint", "`--think-budget N` closes it after N tokens, `--max-tokens` gives it more room")
            return ExitCode.FAILURE
        assert self._fitted is not None
        if answer.finish_reason == "length" and self._wishes.constraint is not None:
            say("error", f"the answer was cut at {answer.usage()['completion_tokens']} tokens, before it was complete")
            say(
                "hint",
                "give it a larger `--max-tokens`" if not answer.hit_context_end else "ask for a larger `--ctx-size`",
            )
            return ExitCode.FAILURE
        if not answer.text and answer.timings is not None and answer.timings.n_reasoning:
            self._out.warn("the model ended its turn after a thought, without an answer")
        if answer.hit_context_end:
            size = self._fitted.size
            whose = "the context" if size.capped_by != "model" else "the model's context"
            self._out.warn(f"the answer ended with {whose}, at {size.n_ctx} tokens")
        return 0

    def _extract(self, answer: Answer, *, is_first: bool) -> int:
        block = first_code_block(answer.text)
        if not is_first:
            sys.stdout.write(DRAFT_BREAK)
        if block is None:
            say("error", "the answer has no fenced code block")
            talk(plain(answer.text, sys.stderr).rstrip("\n") + "\n")
            return ExitCode.FAILURE
        if not block.is_closed:
            self._out.note("the code block is not closed, it goes to the end of the answer")
        sys.stdout.write(plain(block.text, sys.stdout))
        return 0

    def _object(self, answer: Answer, number: int, *, extract: bool) -> dict[str, Any]:
        """Say an answer for a program."""
        assert self._fitted is not None
        found: dict[str, Any] = {
            "model": self._stored.name,
            "quant": self._stored.label,
            "text": answer.text,
            "reasoning": answer.reasoning or None,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage(),
            "timings": answer.timings_json(self._model.load_seconds),
            "sampling": asdict(self._wishes.sampling.of_draft(number)),
            "context": self._fitted.size.n_ctx,
        }
        if self._wishes.n_logprobs:
            found["logprobs"] = answer.logprobs
        if self._scores:
            found["choices"] = [
                {"text": score.text, "probability": score.probability, "logprob": score.logprob}
                for score in self._scores
            ]
        if extract:
            block = first_code_block(answer.text)
            found["code"] = block.text if block else None
        return found

    def log(self, answers: Sequence[Answer], settings: "Mapping[str, Setting]", *, is_forced: bool) -> None:
        """Keep prompt and answers, if the log is on."""
        from owm import logs

        if not (is_forced or logs.open_log().is_on):
            return
        asked, fitted, manifest = self._question, self._fitted, self._stored.manifest
        assert fitted is not None
        turns = asked.messages
        entries = [
            logs.LogEntry(
                command="run",
                model=self._stored.full_name,
                model_sha256=manifest.files[0].sha256 if manifest else None,
                prompt=asked.question if self._wishes.is_raw else turns,
                system=next((str(turn["content"]) for turn in turns if turn["role"] == "system"), None),
                answer=answer.text,
                reasoning=answer.reasoning or None,
                settings={name: setting.value for name, setting in settings.items()}
                | self._wishes.shape()
                | {"n_dropped": fitted.n_dropped, "seed": self._wishes.sampling.of_draft(number).seed},
                finish_reason=answer.finish_reason,
                n_prompt=answer.usage()["prompt_tokens"],
                n_generated=answer.usage()["completion_tokens"],
                n_reasoning=answer.usage()["reasoning_tokens"],
                timings=answer.timings_json(self._model.load_seconds),
            )
            for number, answer in enumerate(answers)
        ]
        if problem := logs.record(*entries, is_forced=is_forced):
            self._out.warn(problem)
