"""Answers on their way, taken down as they are shown, so that an interrupted one is kept as far as it came."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from owm.chat.turn import Turn
from owm.engine.answer import Answer
from owm.engine.generate import Generation
from owm.engine.request import Chunk
from owm.errors import OwmError


class Reply:
    """One answer, or several drafts of one: an iterable of chunks, each of which says by its `request_id` whose it is.

    However the iteration ends (at its end, by `cancel`, by leaving it, by Ctrl-C, by an error), the answers are then
    what was made of them, and a single one has become a turn, unless it is empty.

    Attributes:
        answers: in the order of `ids`.
        turn: what the answer has become; None before that, for an empty one, and for drafts.
        problem: why the turn of the person or of the model is not on the disk yet; it is part of the conversation.
    """

    def __init__(
        self,
        generation: Generation,
        ids: Sequence[int],
        on_end: "Callable[[Reply], Turn | None]",
        *,
        problem: OwmError | None = None,
    ) -> None:
        """Take what makes the answers.

        Args:
            on_end: called once when they are complete.
        """
        self.ids = list(ids)
        self.answers = [Answer() for _ in ids]
        self.tokens: list[list[int]] = [[] for _ in ids]
        self.turn: Turn | None = None
        self.problem = problem
        self.errors: dict[int, OwmError] = {}
        self._generation = generation
        self._on_end = on_end
        self._places: Mapping[int, int] = {request_id: place for place, request_id in enumerate(ids)}
        self._unseen: list[Chunk] = []
        self._has_begun = self._has_failed = False
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Nothing more comes."""
        return self._is_over

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks as they are made.

        Raises:
            EngineError: llama.cpp failed, after the answer has been kept as far as it came.
        """
        if self._is_over or self._has_begun:
            yield from self.rest()
            return
        self._has_begun = True
        has_ended = False
        try:
            for chunk in self._generation:
                self._take(chunk)
                yield chunk
            has_ended = True
        except OwmError:
            self._has_failed = True
            raise
        finally:
            self._end(has_ended=has_ended)
        if len(self.errors) == len(self.ids):
            raise next(iter(self.errors.values()))

    def cancel(self) -> None:
        """Stop; what was made is kept. From any thread, and from a signal's handler."""
        self._generation.cancel()

    def rest(self) -> list[Chunk]:
        """After an iteration that was left: complete the answers, and return what was made and not seen."""
        self._end(has_ended=False)
        unseen, self._unseen = self._unseen, []
        return unseen

    def close(self) -> None:
        """Stop, and keep what was made; does nothing where that has happened."""
        self._end(has_ended=False)

    def _end(self, *, has_ended: bool) -> None:
        if self._is_over:
            return
        interruption: KeyboardInterrupt | None = None
        while not self._is_over:
            try:
                if not has_ended:
                    for chunk in self._generation.rest():
                        self._take(chunk)
                        self._unseen.append(chunk)
                self._is_over = True
            except KeyboardInterrupt as error:  # once more: what was made is kept before that counts
                interruption = error
        for place, answer in enumerate(self.answers):
            if self._has_failed or place in self.errors:
                answer.finish_reason = "failed"
        self.turn = self._on_end(self)
        if interruption is not None:
            raise interruption

    def _take(self, chunk: Chunk) -> None:
        place = self._places.get(chunk.request_id)
        if place is None:
            return
        self.answers[place].take(chunk)
        if chunk.token is not None:
            self.tokens[place].append(chunk.token)
        if chunk.error is not None:
            self.errors[place] = chunk.error
