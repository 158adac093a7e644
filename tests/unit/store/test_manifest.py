"""The manifest: what is written is read back, and nothing else is believed."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import Damaged, OwmError, StoreError
from owm.publishing import publish_text
from owm.store.manifest import FILE_NAME, SCHEMA, FileRecord, Manifest, ModelFacts, dump, parse, write

WHERE = Path("/store/models/hub/o/r/manifest.json")
GOOD = Manifest(
    ref="owner/repo",
    source="hub",
    name="owner/repo",
    label="Q4_K_M",
    revision="main",
    commit="a" * 40,
    files=(
        FileRecord("models--o--r/snapshots/a/x-00001-of-00002.gguf", "hub", 10, "0" * 64),
        FileRecord("models--o--r/snapshots/a/x-00002-of-00002.gguf", "hub", 5, "1" * 64, role="shard"),
    ),
    licence="apache-2.0",
    facts=ModelFacts("llama", "Größe", 10**9, 4096, "mit"),
    created_at="2025-01-01T00:00:00+00:00",
)


def changed(**changes: Any) -> str:
    return json.dumps({**asdict(GOOD), **changes})


def test_a_manifest_is_read_back_as_written() -> None:
    assert parse(dump(GOOD), WHERE) == GOOD
    assert GOOD.size_bytes == 15
    assert json.loads(dump(GOOD))["schema"] == SCHEMA


def test_a_newer_schema_is_refused_by_name() -> None:
    with pytest.raises(
        StoreError, match=rf"written by a newer owm \(schema {SCHEMA + 1}, this one knows {SCHEMA}\)"
    ) as caught:
        parse(changed(schema=SCHEMA + 1, files="something else entirely"), WHERE)
    assert caught.value.hint == "update owm"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"manifest"',
        "{}",
        '{"schema": 1}',
        "[" * 100_000,
        dump(GOOD)[: len(dump(GOOD)) // 2],
        changed(schema=0),
        changed(schema="1"),
        changed(schema=None),
        changed(files=[]),
        changed(files=None),
        changed(files=[1]),
        changed(facts=None),
        changed(facts={}),
        changed(facts={"architecture": 5}),
        changed(extra=1),
        changed(ref=5),
        changed(ref=""),
        changed(ref="a b"),
        changed(label=None),
        changed(label=7),
        changed(created_at=3),
        changed(revision=[]),
        changed(files=[{**asdict(GOOD.files[0]), "size_bytes": "10"}]),
        changed(files=[{**asdict(GOOD.files[0]), "path": 5}]),
        changed(files=[{**asdict(GOOD.files[0]), "root": "disk"}]),
        changed(files=[{**asdict(GOOD.files[0]), "sha256": None}]),
        changed(files=[{**asdict(GOOD.files[0]), "sha256": "0" * 63}]),
        changed(files=[{**asdict(GOOD.files[0]), "sha256": "g" * 64}]),
        changed(files=[{**asdict(GOOD.files[0]), "size_bytes": -1}]),
        changed(files=[{**asdict(GOOD.files[0]), "size_bytes": True}]),
    ],
)
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(Damaged, match="is not a manifest") as caught:
        parse(text, WHERE)
    assert caught.value.hint is not None
    assert str(WHERE.parent) in caught.value.hint


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.gguf", "models/../../x.gguf", "a/..", ".."])
def test_a_path_that_leaves_its_root_is_refused(path: str) -> None:
    with pytest.raises(Damaged, match="a path leaves its root"):
        parse(changed(files=[{**asdict(GOOD.files[0]), "path": path}]), WHERE)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(asdict(GOOD))), _json)
def test_any_changed_field_is_refused_or_gives_a_manifest_that_can_be_used(name: str, value: Any) -> None:
    try:
        read = parse(changed(**{name: value}), WHERE)
    except OwmError:
        return
    assert read.size_bytes >= 0
    assert isinstance(read.ref + read.name + read.label + read.created_at, str)
    assert parse(dump(read), WHERE) == read


def test_publishing_replaces_in_one_step_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write(GOOD, tmp_path)
    publish_text(tmp_path / FILE_NAME, "new")
    assert (tmp_path / FILE_NAME).read_text() == "new"
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_failed_publication_leaves_the_old_content(tmp_path: Path) -> None:
    write(GOOD, tmp_path)
    with pytest.raises(UnicodeEncodeError):
        publish_text(tmp_path / FILE_NAME, "\ud800")
    assert parse((tmp_path / FILE_NAME).read_text("utf-8"), WHERE) == GOOD
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_generation_config_is_read_back_and_held_to_the_same_rules() -> None:
    record = FileRecord("models--o--r/snapshots/a/generation_config.json", "hub", 5, "2" * 64, role="generation_config")
    made = replace(GOOD, generation_config=record)
    assert parse(dump(made), WHERE) == made
    assert made.kept_files == (*GOOD.files, record)
    assert made.size_bytes == GOOD.size_bytes
    for wrong in ({"path": "../x"}, {"path": "/x"}, {"root": "tmp"}, {"sha256": "2"}, {"size_bytes": -1}, {"path": 1}):
        with pytest.raises(Damaged):
            parse(changed(generation_config={**asdict(record), **wrong}), WHERE)


def test_a_manifest_of_before_there_were_generation_configs_is_read() -> None:
    old = json.loads(dump(GOOD))
    del old["generation_config"]
    assert parse(json.dumps(old), WHERE) == GOOD
