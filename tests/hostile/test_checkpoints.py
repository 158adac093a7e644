"""Checkpoints from strangers: whatever their JSON says, planning a conversion ends in a plan or in an error of ours."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.convert.conversion import plan_folder
from owm.errors import Damaged, OwmError
from support.tiny_checkpoint import LLAMA3_ROPE, bf16, write_tiny_checkpoint

ODD: tuple[Any, ...] = (None, 0, -1, 10**40, 10**400, 1e308, "\x1b]0;t\x07", [None], {"rope_type": [], "a": {}})
ADDED = (
    "head_dim", "rope_scaling", "rope_parameters", "quantization_config", "text_config", "num_local_experts",
    "layer_types", "sliding_window", "partial_rotary_factor", "dtype", "attention_bias", "n_group",
)  # fmt: skip


def _plans(folder: Path) -> bool:
    """Plan a conversion as far as headers go; whatever is raised but our own errors fails the test."""
    said = ""
    try:
        plan_folder(folder)
    except OwmError as error:
        said = str(error) or "nothing"
    assert "\x1b" not in said
    assert said != "nothing"
    return not said


@pytest.mark.parametrize("rope", [None, LLAMA3_ROPE], ids=["plain", "llama3"])
def test_any_value_of_any_key_of_the_config(tmp_path: Path, rope: dict[str, Any] | None) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny", config={"rope_parameters": rope} if rope else None)
    config = json.loads((folder / "config.json").read_text())
    keys = [*config, *(key for key in ADDED if key not in config)]
    inner = [("rope_parameters", key) for key in rope or ()]
    for where in [*((key,) for key in keys), *inner]:
        for value in ODD:
            changed = json.loads(json.dumps(config))
            target = changed
            for key in where[:-1]:
                target = target[key]
            target[where[-1]] = value
            (folder / "config.json").write_text(json.dumps(changed))
            _plans(folder)


def test_any_bytes_in_any_small_file(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny", n_shards=2)
    chance = random.Random(0)
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md"]
    for name in [*names, "model.safetensors.index.json"]:
        whole = (folder / name).read_bytes()
        for _ in range(25):
            broken = bytearray(whole)
            for _ in range(chance.choice((1, 1, 2, 8))):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            (folder / name).write_bytes(bytes(broken[: chance.choice((len(broken), chance.randrange(len(broken))))]))
            _plans(folder)
        (folder / name).write_bytes(whole)
    assert _plans(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "null", "[]", "3", '"x"', "{", "[" * 100_000, '{"a":' * 50_000])
def test_json_that_is_none_of_ours(tmp_path: Path, name: str, content: str) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    (folder / name).write_text(content)
    assert not _plans(folder) or name == "tokenizer_config.json"


def test_a_card_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    (folder / "README.md").write_text("---\nlicense: [unclosed\n---\n")
    planned = plan_folder(folder)
    assert planned.card_problem
    assert planned.plan.metadata["general.name"] == "tiny"


def test_scaling_that_was_added_to_a_newer_config_counts(tmp_path: Path) -> None:
    newer = {"rope_type": "default", "rope_theta": 5000.0}
    added = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    config = {"rope_theta": None, "rope_parameters": newer, "rope_scaling": added}
    metadata = plan_folder(write_tiny_checkpoint(tmp_path / "tiny", config=config)).plan.metadata
    assert metadata["llama.rope.scaling.type"] == "yarn"
    assert metadata["llama.rope.freq_base"] == 5000.0


def test_two_tensors_never_become_one(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    twice = {f"language_model.{name}": bf16(np.ones((64, 64), np.float32))}
    with pytest.raises(Damaged, match="two tensors for"):
        plan_folder(write_tiny_checkpoint(tmp_path / "tiny", tensors=twice))


def test_a_language_model_has_no_eyes(tmp_path: Path) -> None:
    seeing = {"visual.x.weight": bf16(np.ones((4, 4), np.float32))}
    with pytest.raises(Damaged, match=r"visual\.x\.weight"):
        plan_folder(write_tiny_checkpoint(tmp_path / "tiny", tensors=seeing))


@pytest.mark.parametrize(
    ("card", "key", "value"),
    [
        ("tags: [1, a]", "general.tags", ["1", "a"]),
        ("tags: [[a, b]]", "general.tags", None),
        ("tags: [2024-01-01]", "general.tags", ["2024-01-01"]),
        ("license: 2024-01-01", "general.license", "2024-01-01"),
        ('model_name: "a\\ud800b"', "general.name", "tiny"),
    ],
)
def test_odd_facts_of_a_card_are_text_or_left_out(tmp_path: Path, card: str, key: str, value: object) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    (folder / "README.md").write_text(f"---\n{card}\n---\n")
    planned = plan_folder(folder)
    assert planned.plan.metadata.get(key) == value
    assert bool(planned.card_problem) is (value in (None, "tiny"))


@pytest.mark.parametrize(
    "content",
    [
        '{"top_k": 1e400, "temperature": Infinity}',
        '{"temperature": ' + "9" * 400 + "}",
        '{"top_k": 99999999999}',
        '{"top_p": "0.9", "min_p": NaN}',
    ],
)
def test_sampling_that_is_no_number_is_left_out(tmp_path: Path, content: str) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    (folder / "generation_config.json").write_text(content)
    assert not [key for key in plan_folder(folder).plan.metadata if key.startswith("general.sampling.")]


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / os.fsdecode(b"bad\xff"))
    assert _plans(folder)
