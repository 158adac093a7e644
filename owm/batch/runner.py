"""Answering rows with one open model: prepared in windows, decoded side by side, each given out when it ends."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from owm.batch.preparation import Preparation, Prepared, Refusal, Terms, failure_of
from owm.batch.readahead import GATHER_SECONDS, ReadAhead
from owm.batch.room import STEP_TOKENS, Room, room_for
from owm.batch.row import Failure, Record, Row
from owm.batch.width import WIDTHS, Width, measure_width
from owm.engine.answer import Answer
from owm.engine.generate import Generation
from owm.engine.prefixes import plan_prefixes
from owm.engine.request import Chunk, FinishReason, Request
from owm.errors import OwmError

if TYPE_CHECKING:
    from owm.engine.model import Model
    from owm.engine.scheduler import Scheduler

WINDOW_ROWS = 512  # that are prepared at a time, among which common beginnings are looked for
FIRST_ROWS = 64  # the same at the beginning, and where answers are awaited in the order of the rows
MAX_LATE_ROWS = 1024  # that have ended but cannot be given out, before no more are begun
MAX_DEFERRED_ROWS = 64  # too long for the context at hand, before they get one of their own
PIECE_TOKENS = 256  # in which prompts are read under `--deterministic`
N_HOLDERS = 2


@dataclass(slots=True)
class Tally:
    """What has been done so far.

    Attributes:
        n_failed: of the rows done, those without an answer.
        n_cut: those whose answer ended at `max_tokens`.
        n_prompt: tokens of prompts, shared ones counted for each row.
        n_decoded: tokens that were computed: less than the others together where prompts share a beginning.
    """

    n_rows: int = 0
    n_failed: int = 0
    n_cut: int = 0
    n_prompt: int = 0
    n_generated: int = 0
    n_decoded: int = 0
    n_slots: int = 0
    n_busy: int = 0


class Runner:
    """Answers rows. One run: iterate `answers` once; after an interruption, `rest` has what was ready by then."""

    def __init__(
        self,
        model: "Model",
        terms: Terms,
        tally: Tally,
        *,
        note: Callable[[str], None] = lambda message: None,
        tick: Callable[[], None] = lambda: None,
        n_late: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take an open model.

        Args:
            tally: is kept up to date.
            tick: called for each token, in the thread that iterates.
            note: takes sentences that the user should know, in the thread that iterates.
            n_late: how many records cannot be given out, since one before them is awaited.
        """
        self._model = model
        self._terms = terms
        self._preparation = Preparation(model, terms)
        self._note = note
        self._tick = tick
        self._n_late = n_late
        self.tally = tally
        self.width: Width | None = None
        self._most_measured = 0
        self._window: deque[Prepared] = deque()
        self._deferred: deque[Prepared] = deque()
        self._running: dict[int, Prepared] = {}
        self._failed: dict[int, Row] = {}  # that never ran, by numbers below those of requests
        self._last_failed = 0
        self._source: ReadAhead | None = None
        self._scheduler: Scheduler | None = None
        self._generation: Generation | None = None
        self._room = Room(0)
        self._is_large = False  # the context is one for rows that were deferred
        self._is_torn = False  # an interruption may have lost chunks

    def answers(self, rows: Iterator[Row]) -> Generator[Record]:
        """Yield a record for each row, in the order in which they end. The rows are read in a thread of their own.

        Raises:
            EngineError: llama.cpp failed.
            OwmError: whatever reading the rows raises.
        """
        self._source = ReadAhead(rows, 2 * WINDOW_ROWS)
        try:
            while True:
                for chunk in self._refill(waits=not self._deferred) or ():
                    if (record := self._take(chunk)) is not None:
                        yield record
                if self._window or self._deferred:
                    yield from self._segment()
                elif self._source.is_over:
                    return
        finally:
            self._source.stop()

    def rest(self) -> list[Record]:
        """After an interruption: stop, and return the records of rows that had ended."""
        if self._generation is None:
            return []
        self._is_torn = True
        return [record for chunk in self._generation.rest() if (record := self._take(chunk)) is not None]

    def _segment(self) -> Iterator[Record]:
        """Answer rows in one context, until the input ends or rows are due that need a larger one."""
        self._is_large = bool(self._deferred)
        rows = self._deferred if self._is_large else self._window
        can_share = not self._terms.is_deterministic and self._model.sees_all
        self._room = room = room_for(rows, is_for_all=self._is_large, can_share=can_share)
        if self._is_large:
            # The others wait behind them: this context is for these.
            self._deferred, self._window = self._window, self._deferred
        width = self._width(self._window[0].request.prompt)
        n_fitting = self._preparation.n_fitting(room.n_own, n_shared=len(room.shared))
        n_holders = N_HOLDERS if room.shared or n_fitting is None or width + N_HOLDERS <= n_fitting else 0
        self.tally.n_slots = width
        with self._model.scheduler(
            room.n_ctx,
            n_sequences=width,
            n_shared=len(room.shared),
            n_holders=n_holders,
            tuning=self._terms.wishes.tuned,
            piece=PIECE_TOKENS if self._terms.is_deterministic else None,
            isolates_failures=True,
        ) as scheduler:
            self._scheduler = scheduler
            self._generation = Generation(scheduler, self._feed)
            try:
                for chunk in self._generation:
                    if (record := self._take(chunk)) is not None:
                        yield record
            finally:
                self._scheduler = None
                self.tally.n_decoded += scheduler.n_decoded
        if self._is_large:
            self._window, self._deferred = self._deferred, self._window

    def _take(self, chunk: Chunk) -> Record | None:
        """Add a chunk to its answer; return the record if that was the last."""
        if (row := self._failed.pop(chunk.request_id, None)) is not None:
            assert chunk.error is not None
            return self._record(row, failure=failure_of(chunk.error))
        prepared = self._running[chunk.request_id]
        answer, tally = prepared.answer, self.tally
        answer.take(chunk)
        if chunk.token is not None:
            tally.n_generated += 1
            prepared.n_taken += 1
        if self._scheduler is not None:
            tally.n_busy = self._scheduler.n_running
        if chunk.finish_reason is None:
            self._tick()
            return None
        del self._running[chunk.request_id]
        if chunk.finish_reason is FinishReason.CANCELLED:
            return None
        if chunk.error is not None:
            return self._record(prepared.row, failure=failure_of(chunk.error))
        if self._is_torn and not prepared.is_whole:
            return None
        tally.n_prompt += answer.usage()["prompt_tokens"]
        if answer.finish_reason == "length" and not prepared.request.sampling.ignore_eos:
            tally.n_cut += 1
        return self._record(prepared.row, _said(answer, prepared.request))

    def _record(self, row: Row, answer: dict[str, Any] | None = None, failure: Failure | None = None) -> Record:
        for message, was_said in tuple(self._preparation.notes.items()):
            if not was_said:
                self._say(message)
        self.tally.n_rows += 1
        self.tally.n_failed += failure is not None
        terms = self._terms
        return Record(
            row.number, row.key, row.id, row.form, row.digest, terms.model, terms.run, row.extra, answer, failure
        )

    def _say(self, message: str) -> None:
        """Tell the user something, once."""
        if not self._preparation.notes.get(message):
            self._preparation.notes[message] = True
            self._note(message)

    # -- in the decoding thread --------------------------------------------------------------------------------------

    def _feed(self) -> list[Chunk] | None:
        """Keep as many rows waiting as there are slots; return chunks of rows that cannot run, None at the end."""
        scheduler = self._scheduler
        assert scheduler is not None
        chunks: list[Chunk] = []
        while scheduler.n_waiting < scheduler.n_slots and not self._is_due():
            if not self._window:
                can_wait = scheduler.is_idle and not chunks and not self._deferred
                if self._is_large or (more := self._refill(waits=can_wait)) is None:
                    break
                chunks += more
                continue
            prepared = self._window.popleft()
            if not self._room.takes(prepared):
                self._deferred.append(prepared)
                continue
            try:
                self._running[scheduler.submit(prepared.request)] = prepared
            except OwmError as error:
                chunks.append(self._fail(prepared.row, error))
        if scheduler.is_idle and not chunks and self._has_ended():
            return None
        return chunks

    def _has_ended(self) -> bool:
        """Nothing more can begin in this context; where rows wait for a larger one, nothing else is there yet."""
        assert self._source is not None
        return self._is_due() or (not self._window and (self._is_large or self._source.is_over or bool(self._deferred)))

    def _is_due(self) -> bool:
        """No more rows are to begin here: longer ones have waited long enough, or records wait for one of them."""
        if self._is_large or not self._deferred:
            return False
        return len(self._deferred) >= MAX_DEFERRED_ROWS or self._n_late() > MAX_LATE_ROWS

    def _refill(self, *, waits: bool) -> list[Chunk] | None:
        """Prepare the next rows; return chunks of those that cannot run, None if there are no more rows for now."""
        assert self._source is not None
        if self._window:
            return None
        if self._n_late() > MAX_LATE_ROWS:  # whoever takes the records is behind
            time.sleep(GATHER_SECONDS if waits else 0)
            return None
        scheduler = self._scheduler
        # The first ones are few: nothing is decoded while they are prepared.
        n_rows = FIRST_ROWS if self._terms.is_streamed or self._generation is None else WINDOW_ROWS
        rows = self._source.take(
            n_rows, waits=waits, is_given_up=lambda: scheduler is not None and scheduler.is_cancelled
        )
        if not rows:
            return None
        chunks, prepared = [], []
        for row in rows:
            try:
                if row.failure is not None:
                    raise Refusal(row.failure)
                prepared.append(self._preparation.prepare(row))
            except OwmError as error:
                chunks.append(self._fail(row, error))
        prompts = [each.request.prompt for each in prepared]
        held = {*scheduler.held_prefixes, self._room.shared} - {()} if scheduler is not None else ()
        piece = PIECE_TOKENS if self._terms.is_deterministic else None
        plan = plan_prefixes(prompts, held, least=self._room.n_ctx // STEP_TOKENS, piece=piece)
        for i in plan.order:
            prepared[i].request = replace(prepared[i].request, splits=plan.splits[i])
            self._window.append(prepared[i])
        return chunks

    def _fail(self, row: Row, error: OwmError) -> Chunk:
        """Make the chunk of a row that never ran."""
        self._last_failed -= 1
        self._failed[self._last_failed] = row
        return Chunk(self._last_failed, "", None, FinishReason.FAILED, error=error)

    def _width(self, tokens: Any) -> int:
        """Return how many rows are answered at a time in a context of the size at hand."""
        if self._terms.is_deterministic:
            return 1
        room = self._room
        n_fitting = self._preparation.n_fitting(room.n_own, n_shared=len(room.shared))
        if n_fitting is not None and room.shared:
            n_fitting -= N_HOLDERS
        most = WIDTHS[-1] if n_fitting is None else max(1, min(n_fitting, WIDTHS[-1]))
        asked = self._terms.n_parallel
        if asked is not None:
            if asked > most:
                why = "that is the most" if most == WIDTHS[-1] else "there is no memory for more"
                self._say(f"{most} rows at a time instead of {asked}: {why}")
            return min(asked, most)
        n_known = len(self._window) + len(self._deferred)
        n_rows = n_known if self._source is not None and self._source.is_over else WIDTHS[-1]
        if (tuned := self._terms.wishes.tuning.n_parallel) is not None:
            return max(1, min(tuned, most, n_rows))
        # Where memory kept it small, and there is more now, a larger one may be better.
        if self.width is None or self.width.n == self._most_measured < most:
            self._most_measured = min(most, n_rows)
            self.width = measure_width(self._model, tokens, most=self._most_measured, tuning=self._terms.wishes.tuned)
            if n_rows > 1:
                self._note(str(self.width))
        return min(self.width.n, most)


def _said(answer: Answer, request: Request) -> dict[str, Any]:
    """Return an answer as the journal keeps it; nothing in it differs between two runs."""
    found: dict[str, Any] = {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage(),
        "seed": request.sampling.seed if request.sampling.temp > 0 else None,
    }
    if request.n_logprobs:
        found["logprobs"] = answer.logprobs
    if request.constraint is not None and answer.finish_reason == "length":
        found["is_cut"] = True
    return found
