"""What makes a stored model stale, and what is known of it without asking anybody."""

from dataclasses import replace
from pathlib import Path

import pytest

from owm.store import refs, updating
from owm.store.local import Store
from owm.store.manifest import FileRecord, Manifest, ModelFacts
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.quants import Variant
from owm.store.sources.base import Offer, RemoteFile
from owm.store.sources.url import UrlSource
from support.stored import put_model

SHA = "0" * 64
OTHER = "1" * 64


def _manifest(*records: FileRecord, ref: str = "me/tiny", **fields: object) -> Manifest:
    files = records or (FileRecord("models--me--tiny/snapshots/a/tiny.gguf", "hub", 10, SHA),)
    made = Manifest(ref, "hub", "me/tiny", "Q8_0", "main", "a" * 40, files, "mit", ModelFacts("llama"), "2025-01-01")
    return replace(made, **fields)


def _plan(*files: RemoteFile, **fields: object) -> PullPlan:
    offer = Offer(refs.parse("me/tiny"), "hub", "me/tiny", "main", "b" * 40, files, licence="mit")
    return PullPlan(offer.ref, replace(offer, **fields), Variant("Q8_0", files), Path("x"), UrlSource())


@pytest.mark.parametrize(
    ("file", "state"),
    [
        (RemoteFile("tiny.gguf", 10, SHA), "current"),
        (RemoteFile("tiny.gguf", 10, OTHER), "stale"),
        (RemoteFile("tiny.gguf", 11), "stale"),
        (RemoteFile("tiny.gguf", 10), "unknown"),
        (RemoteFile("tiny.gguf"), "unknown"),
        (RemoteFile("tiny.gguf", 10, validator='"new"'), "stale"),
        (RemoteFile("tiny.gguf", 10, validator='"old"'), "current"),
        (RemoteFile("renamed.gguf", 10, SHA), "current"),
    ],
)
def test_a_file_is_stale_when_its_source_says_so(file: RemoteFile, state: str) -> None:
    record = FileRecord("models--me--tiny/snapshots/a/tiny.gguf", "hub", 10, SHA, validator='"old"')
    assert updating.compare(_manifest(record), _plan(file))[0] == state


def test_licence_access_and_number_of_parts_are_told() -> None:
    files = (RemoteFile("a-00001-of-00002.gguf", 5, SHA), RemoteFile("a-00002-of-00002.gguf", 5, OTHER))
    state, changes = updating.compare(_manifest(), _plan(*files, licence="apache-2.0", gated=True))
    assert state == "stale"
    assert [str(change) for change in changes] == ["parts 1 -> 2", "licence mit -> apache-2.0", "access open -> gated"]


def test_a_licence_that_is_not_stated_any_more_is_no_change() -> None:
    assert updating.compare(_manifest(), _plan(RemoteFile("tiny.gguf", 10, SHA), licence=None)) == ("current", ())


@pytest.mark.parametrize(
    ("ref", "commit", "is_pinned"),
    [
        ("me/tiny", "a" * 40, False),
        ("me/tiny@main", "a" * 40, False),
        (f"me/tiny@{'a' * 40}", "a" * 40, True),
        (f"me/tiny@{'a' * 7}", "a" * 40, True),
        ("me/tiny@deadbeef", "a" * 40, False),  # a branch of that name
        ("pypi:tiny", "latest", False),
        ("pypi:tiny==1.0", "1.0", True),
        ("ollama:tiny:1b", "b" * 64, False),
        (f"oci://host/tiny@sha256:{'b' * 64}", "b" * 64, True),
    ],
)
def test_what_names_a_content_is_pinned(ref: str, commit: str, is_pinned: bool) -> None:
    assert updating.is_pinned(_manifest(ref=ref, commit=commit)) is is_pinned


def test_of_two_of_one_name_the_earlier_is_old(store: Store) -> None:
    put_model(store, "me/tiny", "Q8_0", commit="a" * 40, created_at="2025-01-01T00:00:00+00:00")
    put_model(store, "me/tiny", "Q8_0", commit="b" * 40, created_at="2025-02-01T00:00:00+00:00")
    put_model(store, "me/tiny", "Q4_0", commit="a" * 40, created_at="2024-01-01T00:00:00+00:00")
    stored = store.models()
    states = {
        (model.label, model.manifest.commit[0]): updating.state_without_asking(model, stored)
        for model in stored
        if model.manifest and model.manifest.commit
    }
    found = states.pop(("Q8_0", "a"))
    assert found is not None
    assert found[0] == "old"
    assert set(states.values()) == {None}


def test_a_newer_one_whose_files_are_gone_makes_none_old(store: Store) -> None:
    put_model(store, "me/tiny", "Q8_0", commit="a" * 40)
    newer = put_model(store, "me/tiny", "Q8_0", commit="b" * 40, created_at="2025-02-01T00:00:00+00:00")
    (newer / "model-Q8_0.gguf").unlink()
    stored = store.models()
    assert [updating.state_without_asking(model, stored) for model in stored if not model.is_gone] == [None]


def test_what_belongs_to_others_is_left_to_them(tmp_path: Path) -> None:
    theirs = _manifest(FileRecord(str(tmp_path / "m.gguf"), "outside", 10, SHA), owner="ollama")
    model = StoredModel("me/tiny", "Q8_0", (tmp_path / "m.gguf",), theirs, tmp_path)
    assert updating.state_without_asking(model, [model]) == ("foreign", "it belongs to ollama, update it there")
