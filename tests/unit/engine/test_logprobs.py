"""Probabilities from logits: any size of them, and text that is no text yet."""

import json
import math

import numpy as np
import pytest

from owm.engine.logprobs import TokenLogprob, TokenLogprobs, log_normalizer


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 3e38])
def test_logits_of_any_size_are_normalised(offset: float) -> None:
    logits = np.array([0.0, math.log(3.0), -np.inf], np.float32) + np.float32(offset)
    expected = offset + math.log(4.0)
    assert log_normalizer(logits) == pytest.approx(expected, rel=1e-6)


def test_many_small_probabilities_are_not_lost() -> None:
    """A sum of 2^18 equal terms in float32 alone would be off in the fourth digit."""
    assert log_normalizer(np.full(1 << 18, 5.0, np.float32)) == pytest.approx(5 + 18 * math.log(2), abs=1e-6)


def test_json_has_text_and_bytes() -> None:
    taken = TokenLogprob(7, b"\xc3", -0.12345678)
    said = TokenLogprobs(taken, (TokenLogprob(8, b"a", -1e-12),)).as_json()
    assert said == {
        "token": "\ufffd",
        "logprob": -0.123457,
        "bytes": [0xC3],
        "top_logprobs": [{"token": "a", "logprob": 0.0, "bytes": [97]}],
    }
    assert "-0.0" not in json.dumps(said["top_logprobs"])
