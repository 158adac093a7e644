"""How a token is drawn from logits: llama.cpp's sampler chain, with the likeliest token as a case of its own."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from owm.native.binding import llama as c
from owm.native.llama import Context, Model

_NEVER = np.float32("-inf")
_MARGIN = np.float32(10.0)  # of logits below the highest: hundreds of tokens of a large vocabulary
_MAX_FEW = 8192

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Numbers of a sampler chain; a temperature of 0 is greedy. `seed` is 32 bits."""

    temp: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    seed: int
    ignore_eos: bool


class Sampler:
    """A llama.cpp sampler chain: penalties, top-k, top-p, min-p, temperature, then a draw (or the likeliest)."""

    def __init__(self, settings: SamplerSettings, model: Model) -> None:
        params = c.llama_sampler_chain_default_params()
        params.no_perf = True
        self.pointer = c.llama_sampler_chain_init(params)
        s = settings
        # llama_token_data as it lies in memory: an id (in 32 bits too), a logit, a probability.
        self._candidates: np.ndarray[Any, np.dtype[np.float32]] | None = None
        self._banned = model.ends if s.ignore_eos else ()
        if self._banned:
            biases = (c.llama_logit_bias * len(self._banned))(*((token, float("-inf")) for token in self._banned))
            self._add(c.llama_sampler_init_logit_bias(model.n_vocab, len(self._banned), biases))
        self._remembers = s.repeat_penalty != 1.0 or s.presence_penalty != 0 or s.frequency_penalty != 0
        if self._remembers:
            self._add(
                c.llama_sampler_init_penalties(
                    model.n_vocab, s.repeat_last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty
                )
            )
        # Without penalties the likeliest token is one scan of the logits: no need to build candidates.
        self._is_plain_greedy = s.temp <= 0 and not self._remembers
        self._top_k = 0
        if s.temp <= 0:
            self._add(c.llama_sampler_init_greedy())
            return
        self._top_k = s.top_k
        if s.top_k > 0:
            self._add(c.llama_sampler_init_top_k(s.top_k))
        if s.top_p < 1.0:
            self._add(c.llama_sampler_init_top_p(s.top_p, 1))
        if s.min_p > 0:
            self._add(c.llama_sampler_init_min_p(s.min_p, 1))
        self._add(c.llama_sampler_init_temp(s.temp))
        self._add(c.llama_sampler_init_dist(s.seed))

    def _add(self, link: Any) -> None:
        c.llama_sampler_chain_add(self.pointer, link)

    def sample(self, context: Context, index: int) -> int:
        """Draw the next token from the logits of the batch's token `index`, and remember it."""
        if self._is_plain_greedy:
            return self._likeliest(context.logits(index))
        if self._top_k and not self._remembers and (token := self._among_likeliest(context.logits(index))) >= 0:
            return token
        return int(c.llama_sampler_sample(self.pointer, context.pointer, index))

    def _among_likeliest(self, logits: "np.ndarray[Any, np.dtype[np.float32]]") -> int:
        """Draw as the whole chain would, which begins with the K likeliest, from a few that these must be among.

        The chain needs five times as long to sort a whole vocabulary. Returns -1 where the few are fewer than K.
        """
        for token in self._banned:
            logits[token] = _NEVER
        few = np.flatnonzero(logits > logits.max() - _MARGIN)
        if not self._top_k <= len(few) <= _MAX_FEW:
            return -1
        candidates = np.zeros((len(few), 3), np.float32)
        candidates.view(np.int32)[:, 0] = few
        candidates[:, 1] = logits[few]
        return self._applied(candidates)

    def _applied(self, candidates: "np.ndarray[Any, np.dtype[np.float32]]") -> int:
        """Return the token that the chain draws from candidates [n, 3], which it sorts; -1 for none."""
        items = ctypes.cast(candidates.ctypes.data, c.llama_token_data_p)
        array = c.llama_token_data_array(items, len(candidates), -1, False)
        c.llama_sampler_apply(self.pointer, ctypes.byref(array))
        return int(array.data[array.selected].id) if array.selected >= 0 else -1

    def _likeliest(self, logits: "np.ndarray[Any, np.dtype[np.float32]]") -> int:
        for token in self._banned:
            logits[token] = _NEVER
        return int(logits.argmax())

    def draw(self, context: Context, index: int, mask: Mask | None = None) -> int:
        """Draw a token without remembering it, so that another may be drawn instead; `accept` the one that counts.

        Args:
            mask: which tokens may be drawn, at least one; None for all.

        Returns:
            The token, -1 if llama.cpp draws none because all that are left are impossible.
        """
        if mask is None and not self._remembers:
            return self.sample(context, index)
        logits = context.logits(index)
        if mask is not None:
            logits = np.where(mask, logits, _NEVER)
        if self._is_plain_greedy:
            return self._likeliest(logits)
        if self._candidates is None:
            self._candidates = np.zeros((2, len(logits), 3), np.float32)
            self._candidates.view(np.int32)[0, :, 0] = np.arange(len(logits))
        fresh, candidates = self._candidates  # the samplers sort what they get
        candidates[:] = fresh
        candidates[:, 1] = logits
        return self._applied(candidates)

    def accept(self, tokens: Sequence[int]) -> None:
        """Let the penalties know of tokens that `sample` did not draw."""
        for token in tokens if self._remembers else ():
            c.llama_sampler_accept(self.pointer, token)

    def close(self) -> None:
        """Free the chain."""
        if self.pointer:
            c.llama_sampler_free(self.pointer)
            self.pointer = None
