"""What owm makes is kept in the store under the source's name: once, replaced when made otherwise, found again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from owm.errors import StoreError, UsageError
from owm.library.keeping import Origin, keep_all, local_name, stem_of
from owm.pipeline.writer import Written
from owm.store import refs
from owm.store.local import Store
from support.facts import model_bytes
from support.stored import put_model
from support.tiny_gguf import tiny_gguf

ORIGIN = Origin("local:tiny", "local", "tiny", made_from={"path": "/somewhere/tiny"})


class Writer:
    """Writes tiny models and remembers which."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, paths: Sequence[Path]) -> list[list[Written]]:
        self.names += [path.name for path in paths]
        for path in paths:
            path.write_bytes(tiny_gguf())
        return [[Written(path, len(tiny_gguf()), "0" * 64)] for path in paths]


def kept(store: Store, wanted: Sequence[tuple[str, str | None]], writer: Writer, origin: Origin = ORIGIN) -> list[Path]:
    models = keep_all(origin, wanted, writer, lambda index: {"type": wanted[index][0]}, store)
    return [model.path for model in models]


def test_types_lie_beside_each_other_and_say_what_they_are_made_of(store: Store) -> None:
    writer = Writer()
    paths = kept(store, [("Q4_K_M", "a"), ("Q8_0", "b")], writer)
    assert writer.names == ["tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"]
    assert [path.name for path in paths] == writer.names
    found = store.find(refs.parse("local:tiny:Q8_0"))
    assert found is not None
    assert found.path == paths[1]
    made = json.loads((paths[1].parent / "manifest.json").read_text())["made_from"]
    assert made == {"path": "/somewhere/tiny", "type": "Q8_0", "digest": "b"}


def test_one_made_in_the_same_way_is_not_made_again(store: Store) -> None:
    kept(store, [("Q4_K_M", "a")], Writer())
    writer = Writer()
    kept(store, [("Q8_0", "b"), ("Q4_K_M", "a")], writer)
    assert writer.names == ["tiny-Q8_0.gguf"]
    again = Writer()
    kept(store, [("Q8_0", "b"), ("Q4_K_M", "a")], again)
    assert again.names == []


def test_one_made_otherwise_takes_its_place(store: Store) -> None:
    (path,) = kept(store, [("Q4_K_M", "a")], Writer())
    (path.parent / "tiny-Q4_K_M-00001-of-00002.gguf").write_bytes(b"a part of an older one")
    writer = Writer()
    kept(store, [("Q4_K_M", "other")], writer)
    assert writer.names == ["tiny-Q4_K_M.gguf"]
    assert json.loads((path.parent / "manifest.json").read_text())["made_from"]["digest"] == "other"
    assert sorted(file.name for file in path.parent.glob("*.gguf")) == ["tiny-Q4_K_M.gguf"]


def test_whatever_is_there_will_do_if_nothing_names_its_content(store: Store) -> None:
    kept(store, [("Q4_K_M", "a")], Writer())
    writer = Writer()
    kept(store, [("Q4_K_M", None)], writer)
    assert writer.names == []


def test_one_whose_file_is_gone_is_made_again(store: Store) -> None:
    (path,) = kept(store, [("Q4_K_M", "a")], Writer())
    path.unlink()
    writer = Writer()
    kept(store, [("Q4_K_M", "a")], writer)
    assert writer.names == ["tiny-Q4_K_M.gguf"]


def test_a_published_file_is_not_overwritten(store: Store) -> None:
    folder = put_model(store, "acme/tiny", "Q4_K_M", content=model_bytes(64))
    before = sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir())
    origin = replace(ORIGIN, ref="acme/tiny", source="hub", name="acme/tiny", revision="main", commit="a" * 40)
    writer = Writer()
    with pytest.raises(UsageError, match=r"acme/tiny:Q4_K_M is stored as it was published") as caught:
        kept(store, [("Q8_0", "b"), ("Q4_K_M", "a")], writer, origin)
    assert "-o FILE" in str(caught.value.hint)
    assert writer.names == []
    assert sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir()) == before


def test_what_fails_leaves_the_old_one(store: Store) -> None:
    (path,) = kept(store, [("Q4_K_M", "a")], Writer())

    def fail(paths: Sequence[Path]) -> list[list[Written]]:
        raise StoreError("no")

    with pytest.raises(StoreError):
        keep_all(ORIGIN, [("Q4_K_M", "b")], fail, lambda _: {}, store)
    assert path.exists()
    found = store.find(refs.parse("local:tiny:Q4_K_M"))
    assert found is not None
    assert found.manifest is not None
    assert found.manifest.made_from is not None
    assert found.manifest.made_from["digest"] == "a"


@pytest.mark.parametrize(
    ("name", "stem", "local"),
    [
        ("Model-BF16.gguf", "Model", "model"),
        ("model-bf16-00001-of-00002.gguf", "model", "model"),
        ("My Model (v2).gguf", "My Model (v2)", "my-model-v2"),
        ("SmolLM2-135M", "SmolLM2-135M", "smollm2-135m"),
        ("....gguf", "...", "model"),
        ("ü.gguf", "ü", "model"),
        ("Q8_0.gguf", "Q8_0", "q8_0"),
    ],
)
def test_a_path_is_kept_under_its_own_name(tmp_path: Path, name: str, stem: str, local: str) -> None:
    assert stem_of(tmp_path / name) == stem
    assert local_name(tmp_path / name) == local
    assert str(refs.parse(f"local:{local}:Q4_K_M")) == f"local:{local}:Q4_K_M"
