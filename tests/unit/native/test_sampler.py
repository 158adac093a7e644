"""Drawing from the few likeliest tokens: the same as from the whole vocabulary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.engine.model import Model
from owm.engine.running import sampler_settings
from owm.engine.sampling import Sampling
from owm.native import llama
from owm.native.sampler import Sampler
from support.tiny_gguf import write_tiny_gguf


class Few(Sampler):
    """Counts how often the short way was taken."""

    n_short = 0

    def _among_likeliest(self, logits: Any) -> int:
        token = super()._among_likeliest(logits)
        self.n_short += token >= 0
        return token


class Whole(Sampler):
    """Never takes the short way."""

    def _among_likeliest(self, logits: Any) -> int:
        return -1


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_the_short_way_draws_the_same(tmp_path: Path, scale: float, ignore_eos: bool) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")], n_gpu_layers=0) as model:
        sizes = {"n_ctx": 64, "n_batch": 64, "n_ubatch": 64, "n_sequences": 1, "n_threads": 1, "n_threads_batch": 1}
        context = llama.Context(model.native, **sizes)
        context.batch.add(5, 0, 0, wants_logits=True)
        assert context.decode() == 0
        logits, random = context.logits(0), np.random.default_rng(7)
        settings = sampler_settings(Sampling(temp=1.2, top_k=12, seed=3, ignore_eos=ignore_eos))
        few, whole = Few(settings, model.native), Whole(settings, model.native)
        for _ in range(200):
            drawn = random.normal(0, scale, len(logits)).astype(np.float32)
            logits[:] = drawn
            first = few.sample(context, 0)
            logits[:] = drawn
            assert whole.sample(context, 0) == first
        assert few.n_short > 100 or scale == 8.0
        few.close()
        whole.close()
        context.close()
