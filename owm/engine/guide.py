"""What steers one answer besides its sampling: the thought before it, the text it begins with, a constraint on it."""

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from owm.engine.logprobs import Likeliest, TokenLogprobs
from owm.engine.request import Request
from owm.engine.text import TextStream
from owm.errors import EngineError
from owm.native.llama import Context, Model
from owm.native.sampler import Sampler

if TYPE_CHECKING:
    from owm.engine.constrain import Matcher


@dataclass(frozen=True, slots=True)
class Given:
    """Tokens that come next whatever the model says; with `text` they are the beginning that was asked for."""

    tokens: list[int]
    text: str = ""


class Guide:
    """Decides with the sampler which token comes next, and which are fed without asking it.

    An answer is steered if it is constrained or its beginning is given. That starts where the thought has ended; where
    none has begun, the model may open one with what it draws first.
    """

    def __init__(
        self, request: Request, model: Model, stream: TextStream, sampler: Sampler, matcher: "Matcher | None"
    ) -> None:
        self._request = request
        self._model = model
        self._stream = stream
        self._thoughts = stream.thoughts
        self._marks = request.reasoning.tokens(model) if request.reasoning else {}
        self._sampler = sampler
        self._matcher = matcher
        self._likeliest: Likeliest | None = None
        self._is_steered = matcher is not None or bool(request.answer_prefix)
        self._has_begun = False
        self._has_thought = False
        self._opening = ""  # what may be that of a thought
        self._next: list[Given] = []
        self._closes = False

    @property
    def is_thinking(self) -> bool:
        """The next token belongs to a thought."""
        return self._thoughts is not None and self._thoughts.is_thinking

    @property
    def has_begun(self) -> bool:
        """The answer that is steered has begun."""
        return self._has_begun

    @property
    def is_finished(self) -> bool:
        """Nothing may follow: the constraint is met, or the answer's own mark has ended it."""
        if self._thoughts is not None and self._thoughts.is_finished:
            return True
        return self._has_begun and self._matcher is not None and self._matcher.is_finished and not self._next

    def refuses_end(self) -> bool:
        """Tell whether the turn ends before an answer that is steered; then the thought is closed instead."""
        if not self._is_steered or not self.is_thinking:
            return False
        self._close()
        return True

    def draw(self, context: Context, index: int) -> int | None:
        """Draw the next token, one that the constraint allows if the answer has begun; None if one is given instead.

        A token is drawn without looking at the constraint; if that refuses it, one is drawn among those that it
        allows. So the likeliest token is exactly the likeliest allowed one, and without truncation (top-k, top-p,
        min-p) the distribution is exactly the one over allowed tokens: p(x) + p(refused) · p(x) / p(allowed) =
        p(x) / p(allowed).

        Raises:
            EngineError: the constraint allows no token.
        """
        self._likeliest = None
        if self.is_thinking:
            return self._sampler.sample(context, index)
        if self._request.n_logprobs:
            self._likeliest = Likeliest(self._model, context.logits(index), self._request.n_logprobs)
        if not self._is_steered:
            return self._sampler.sample(context, index)
        token = self._sampler.draw(context, index)
        if not self._has_begun and not self._opens(token):
            self._begin()
        if self._next:
            return None
        matcher = self._matcher if self._has_begun else None
        if matcher is not None and not matcher.allows(token):
            mask = matcher.mask()
            token = self._sampler.draw(context, index, mask) if mask.any() else -1
            if token < 0 or not matcher.allows(token):
                raise EngineError("no token of the model goes on with what the constraint demands")
        self._sampler.accept((token,))
        if matcher is not None and not self._model.is_end(token):
            matcher.accept(token)
        return token

    def push(self, token: int) -> str:
        """Add a token to the text; return what is certain of the answer now."""
        if (mark := self._marks.get(token)) is not None:
            self._likeliest = None
            return self._stream.push_mark(mark)
        return self._stream.push(self._model.piece(token, special=False))

    def logprobs(self, token: int) -> TokenLogprobs | None:
        """Return the probabilities that a token of the answer was drawn from, if they were asked for."""
        if self._likeliest is None or (self._thoughts and (self.is_thinking or self._thoughts.is_undecided)):
            return None
        return self._likeliest.taken(token)

    def given(self, n_reasoning: int) -> Given | None:
        """Return what comes next without being drawn, one after the other; it is taken for accepted.

        Args:
            n_reasoning: tokens of thought so far.
        """
        if self._next:
            return self._next.pop(0)
        if self.is_thinking:
            self._has_thought = True
            budget = self._request.think_budget
            if budget is None or n_reasoning < budget or self._closes:
                return None
            self._close()
            return self._next.pop(0)
        self._closes = False
        if not self._is_steered:
            return None
        if not self._has_begun:
            if self._thoughts is not None and self._thoughts.is_undecided:
                if not self._has_thought:
                    return None
                if lead := self._thoughts.lead:
                    return Given(self._special(lead))
            self._begin()
            return self._next.pop(0) if self._next else None
        return self._forced()

    def _opens(self, token: int) -> bool:
        """Tell whether a token can belong to the opening of a thought."""
        if self._thoughts is None or self._model.is_end(token):
            return False
        if token in self._marks:
            return True
        text = self._model.piece(token, special=False).decode("utf-8", "replace")
        probe = deepcopy(self._thoughts)
        probe.push(text)
        if not (probe.is_thinking or probe.is_undecided):
            return False
        self._opening = (self._opening + text).lstrip()
        return True

    def _begin(self) -> None:
        """Begin the answer, unless the opening of a thought has begun: then that is completed."""
        reasoning, opening, self._opening = self._request.reasoning, self._opening, ""
        if reasoning is not None and opening and reasoning.opens.startswith(opening):
            self._next.append(Given(self._special(reasoning.opens.removeprefix(opening))))
            return
        self._has_begun = True
        if self._thoughts is not None:
            self._stream.begin_answer()
        if prefix := self._request.answer_prefix:
            self._next.append(Given(self._model.continuation(prefix), prefix))
        if forced := self._forced():
            self._next.append(forced)

    def _close(self) -> None:
        assert self._request.reasoning is not None
        self._closes = True
        self._next.append(Given(self._special(self._request.reasoning.closes)))

    def _forced(self) -> Given | None:
        """Return what the constraint leaves no choice of; whoever asks for probabilities gets them for every token."""
        if self._matcher is None or self._request.n_logprobs:
            return None
        if not (tokens := self._matcher.forced()):
            return None
        for token in tokens:
            self._matcher.accept(token)
        self._sampler.accept(tokens)
        return Given(tokens)

    def _special(self, text: str) -> list[int]:
        return self._model.tokenize(text, add_special=False, parse_special=True)
