import json
from pathlib import Path

import pytest

from owm.errors import MalformedFile, ModelNotFound
from owm.tailor.recipe_file import Row, Tailored, read_recipe, write_recipe

TYPES = {"blk.0.attn_v.weight": "Q8_0", "token_embd.weight": "Q5_1"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    row = Row("attn_v.weight", 1, 1088, 8.5, {"Q8_0": 1}, 0.001, 0.02)
    recipe = Tailored(TYPES, 5000, 4992, 0.03, 0.031, (row,), ("a note",))
    write_recipe(recipe, tmp_path / "recipe.json")
    found = read_recipe(tmp_path / "recipe.json")
    assert found == Tailored(TYPES, 5000, 4992, 0.03, 0.031)
    assert json.loads((tmp_path / "recipe.json").read_text())["table"][0]["types"] == {"Q8_0": 1}


def test_one_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"format": "owm.recipe", "version": 1, "types": TYPES, "target_bytes": "much"}))
    assert read_recipe(path) == Tailored(TYPES, 0, 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "does not say"),
        ('{"format": "owm.recipe", "version": 2, "types": {}}', "version"),
        ('{"format": "owm.recipe", "version": 1}', "no types"),
        ('{"format": "owm.recipe", "version": 1, "types": {"a": "Q9_9"}}', "unknown type"),
        ('{"format": "owm.recipe", "version": 1, "types": {"a": ["Q8_0"]}}', "unknown type"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(MalformedFile, match=why):
        read_recipe(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        read_recipe(tmp_path / "none.json")
