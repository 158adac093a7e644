"""How an embedding model pools, from sentence-transformers' files."""

import json
from pathlib import Path
from typing import Any

import pytest

from owm.convert.pooling import read_pooling
from owm.errors import MalformedFile, Unsupported


def _write(folder: Path, settings: dict[str, Any] | None, place: Any = "1_Pooling") -> Path:
    modules = [{"type": "m.Transformer", "path": ""}, {"type": "m.Pooling", "path": place}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    if settings is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, 1),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, 2),
        ({"pooling_mode_lasttoken": True}, 3),
        ({"pooling_mode": "cls"}, 2),
    ],
)
def test_both_dialects_name_the_pooling(tmp_path: Path, settings: dict[str, Any], expected: int) -> None:
    assert read_pooling(_write(tmp_path, settings)) == {"pooling_type": expected}


def test_a_model_without_modules_says_nothing(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": ["mean"]},
        {},
    ],
)
def test_an_unknown_pooling_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        read_pooling(_write(tmp_path, settings))


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "", 3, None, ".."])
def test_a_folder_outside_the_checkpoint_is_refused(tmp_path: Path, place: Any) -> None:
    with pytest.raises(MalformedFile):
        read_pooling(_write(tmp_path, None, place))


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[" * 100000])
def test_a_malformed_list_of_modules_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text, encoding="utf-8")
    with pytest.raises(MalformedFile):
        read_pooling(tmp_path)
