"""The proofs of adapters: the reference's file, and the logits of a checkpoint that the adapter was merged into."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from owm.convert.lora import execute_adapter, plan_adapter
from parity.cases import CASES
from parity.checkpoints import reference_logits
from parity.comparing import MIN_COSINE, Agreement, agreement, file_differences
from parity.converting import OwmConverter, ReferenceConverter
from parity.proof import Proof, Row
from parity.vocabularies import Shelf
from parity.worker import RefusedError, Worker

MAX_COSINE_WITHOUT = 0.98
ATTENTION_AND_FEED_FORWARD = r"model\.layers\.\d+\.(self_attn|mlp)\.\w+\.weight"


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """An adapter of a case's checkpoint.

    Attributes:
        case: the id of the case.
        targets: which weights of the checkpoint are adapted, by a pattern of their names.
        settings: of adapter_config.json, on top of the usual ones.
        reference: whether the reference converter's file is the right one, else why not.
        rank: of a module, by its name.
    """

    case: str
    targets: str = ATTENTION_AND_FEED_FORWARD
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: bool | str = True
    rank: Callable[[str], int] = lambda module: 4


ADAPTED = {
    "llama": Adapted(case="llama-gqa"),
    "llama-embeddings": Adapted(case="llama-gqa", targets=r"model\.embed_tokens\.weight|lm_head\.weight"),
    "llama-scaled": Adapted(
        case="llama-head_dim",
        settings={"use_rslora": True, "alpha_pattern": {"v_proj": 24, "^model.layers.1.mlp.up_proj": 5}},
        rank=lambda module: 8 if "down_proj" in module else 4,
        reference="it knows one scaling only",
    ),
    "qwen2": Adapted(case="qwen2-plain"),
    "gpt2": Adapted(
        case="gpt2-plain",
        targets=r"(transformer\.)?h\.\d+\.(attn|mlp)\.c_\w+\.weight",
        settings={"fan_in_fan_out": True},
        reference="it swaps the factors",
    ),
    "gptneox": Adapted(
        case="gptneox-published", targets=r"gpt_neox\.layers\.\d+\.(attention|mlp)\.(query|dense)\w*\.weight"
    ),
    "phi3": Adapted(case="phi3-plain"),
    "falcon_h1": Adapted(
        case="falcon_h1-plain",
        targets=r"model\.layers\.\d+\.(self_attn|feed_forward|mamba)\.(\w*_)?proj\.weight",
        reference="it assigns to parts of a matrix, and fails",
    ),
    "mixtral": Adapted(
        case="mixtral-old", targets=r"model\.layers\.\d+\.block_sparse_moe\.(gate|experts\.\d+\.w\d)\.weight"
    ),
    "bert": Adapted(case="bert-plain", targets=r"encoder\.layer\.\d+\..*(query|key|value|dense)\.weight"),
}


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return by what PEFT multiplies B·A."""
    alpha = next(
        (alpha for key, alpha in config.get("alpha_pattern", {}).items() if re.search(f"(^|\\.){key}$", module)), None
    )
    alpha = config["lora_alpha"] if alpha is None else alpha
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


class Subject:
    """A checkpoint with its model file, an adapter of it, and the logits of the two merged."""

    def __init__(self, adapted: Adapted, llama: Worker, shelf: Shelf, folder: Path) -> None:
        self.adapted = adapted
        case = next(case for case in CASES if case.id == adapted.case)
        self.proof = Proof(case, OwmConverter(), llama, shelf, folder, Row(case.id, case.hf))
        self.folder = folder
        self.base = self.proof.checkpoint.folder
        self.adapter = folder / "Tiny-Adapter-LoRA"
        self.expected = self._make(self.adapter, folder / "merged")
        self._llama = llama

    def _make(self, adapter: Path, merged: Path) -> np.ndarray:
        """Write the adapter as PEFT does; return the logits of the base with it."""
        adapted, case = self.adapted, self.proof.case
        shutil.copytree(self.base, merged)
        generator = torch.Generator().manual_seed(1)
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", **adapted.settings}
        pairs: dict[str, torch.Tensor] = {}
        for file in merged.glob("*.safetensors"):
            tensors = load_file(file)
            for name, weight in tensors.items():
                if not re.fullmatch(adapted.targets, name):
                    continue
                module = name.removesuffix(".weight")
                is_embedding = "embed_tokens" in name
                rank = adapted.rank(module)
                stored_turned = is_embedding or bool(config.get("fan_in_fan_out"))
                n_out, n_in = reversed(weight.shape) if stored_turned else weight.shape
                a = torch.randn((rank, n_in), generator=generator) / (1 if is_embedding else math.sqrt(n_in))
                b = torch.randn((n_out, rank), generator=generator)
                b *= 0.1 if is_embedding else 0.4
                change = b @ a * _scale(config, module, rank)
                tensors[name] = (weight.float() + (change.T if stored_turned else change)).contiguous()
                prefix = f"base_model.model.{module}.lora_"
                keys = ("embedding_A", "embedding_B") if is_embedding else ("A.weight", "B.weight")
                pairs |= {prefix + keys[0]: a.contiguous(), prefix + keys[1]: b.contiguous()}
            save_file(tensors, file, {"format": "pt"})
        adapter.mkdir()
        save_file(pairs, adapter / "adapter_model.safetensors", {"format": "pt"})
        (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        (adapter / "README.md").write_text("---\nlicense: mit\nbase_model: acme/Tiny-1B\n---\n", encoding="utf-8")
        cls = getattr(transformers, case.made_by or case.hf)
        model = cls.from_pretrained(merged, attn_implementation="eager", dtype=torch.float32).eval()
        return reference_logits(model, self.proof.checkpoint.tokens, case.output)

    def converted(self, outtype: str) -> Path:
        """Convert the adapter with owm."""
        out = self.folder / f"adapter-{outtype}.gguf"
        if not out.exists():
            execute_adapter(plan_adapter(self.adapter, self.base, type_name=outtype), [out])
        return out

    def agreement_of(self, adapter: Path | None) -> Agreement:
        """Compare llama.cpp's logits, with the base's file and an adapter, with those of the merged checkpoint."""
        to, checkpoint = self.folder / "rows.npy", self.proof.checkpoint
        request = {"gguf": str(self.proof.gguf), "tokens": checkpoint.tokens, "kind": self.proof.case.output}
        self._llama.ask(request | {"to": str(to)} | ({"adapter": str(adapter)} if adapter else {}))
        return agreement(np.load(to), self.expected, np.arange(len(checkpoint.tokens)))


@pytest.fixture(scope="module", params=ADAPTED)
def subject(
    request: pytest.FixtureRequest, llama: Worker, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    """One adapter; its files are gone after its last test."""
    subject = Subject(ADAPTED[request.param], llama, shelf, tmp_path_factory.mktemp(request.param))
    yield subject
    subject.proof.close()


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16"])
def test_the_file_is_the_references(subject: Subject, reference: ReferenceConverter, outtype: str) -> None:
    theirs = subject.folder / f"theirs-{outtype}.gguf"
    if subject.adapted.reference is not True:
        with suppress(RefusedError):
            reference.convert_adapter(subject.adapter, subject.base, theirs, outtype)
            assert file_differences(subject.converted(outtype), theirs), "it makes the same file"
            assert subject.agreement_of(theirs).min_cosine < MIN_COSINE, "its file is right too"
        return
    reference.convert_adapter(subject.adapter, subject.base, theirs, outtype)
    assert not file_differences(subject.converted(outtype), theirs)


def test_the_logits_are_those_of_the_merged_checkpoint(subject: Subject) -> None:
    without, found = subject.agreement_of(None), subject.agreement_of(subject.converted("f32"))
    assert without.min_cosine < MAX_COSINE_WITHOUT, "the adapter changes next to nothing"
    assert found.min_cosine >= MIN_COSINE
    assert found.holds
