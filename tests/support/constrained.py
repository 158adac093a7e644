"""Answers under a constraint, without a model that makes them."""

import random

from owm.engine.constrain import Constraint, Vocabulary
from owm.native.llama import Model


def accepts(constraint: Constraint, native: Model, vocabulary: Vocabulary, text: str) -> bool:
    """Tell whether a text is a whole answer, token by token as the model's tokenizer has it."""
    matcher = constraint.matcher(vocabulary)
    for token in native.tokenize(text, add_special=False, parse_special=False):
        if not matcher.allows(token):
            return False
        assert matcher.mask().any()
        matcher.accept(token)
    assert all(matcher.allows(end) == matcher.is_complete for end in vocabulary.ends)
    return matcher.is_complete


def wander(
    constraint: Constraint, native: Model, vocabulary: Vocabulary, seed: int, *, n_steps: int = 200
) -> str | None:
    """Return an answer of tokens drawn from the masks, None if it has no end after `n_steps`.

    After some tokens those that bring JSON to an end are preferred.
    """
    dice = random.Random(seed)
    pieces = {token: native.piece(token, special=False) for token in range(native.n_vocab)}
    closing = [token for text in (b'"', b"}", b"]", b"0", b"1") for token, piece in pieces.items() if piece == text]
    matcher, raw, n_free = constraint.matcher(vocabulary), b"", dice.randrange(30)
    for step in range(n_steps):
        if matcher.is_finished or (matcher.is_complete and step >= n_free):
            break
        mask = matcher.mask()
        allowed = [token for token in closing if mask[token]] if step >= n_free else []
        token = dice.choice(allowed or [token for token in pieces if mask[token]])
        if token in vocabulary.ends:
            break
        assert matcher.allows(token)
        matcher.accept(token)
        raw += pieces[token]
    return raw.decode() if matcher.is_complete else None
