"""A tree that is moved is whole at any time, and nothing is taken away that the new place does not have."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.errors import Damaged, NotEnoughDisk, StoreError, UsageError
from owm.events import Event, Warned
from owm.store import moving, trees
from owm.store.local import Store
from owm.store.moving import execute_move, plan_move
from owm.store.trees import Tree
from support.facts import model_bytes
from support.stored import put_model

OTHER_DISKS = [disk for disk in (Path("/dev/shm"),) if disk.is_dir()]


@pytest.fixture(params=["same disk", *map(str, OTHER_DISKS)])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on the same disk, and one on another."""
    if request.param == "same disk":
        yield tmp_path / "elsewhere"
        return
    folder = Path(tempfile.mkdtemp(dir=request.param))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def tree(store: Store) -> Tree:
    for number in range(3):
        put_model(store, f"me/model{number}", "Q8_0", content=model_bytes(10_000 * (number + 1), number))
    return trees.models_of(store.home)


def contents(top: Path) -> dict[str, bytes]:
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}


def move(tree: Tree, folder: Path) -> list[Event]:
    said: list[Event] = []
    execute_move(plan_move(tree, folder), sink=said.append)
    return said


def test_all_is_moved_and_found_under_the_same_path(tree: Tree, store: Store, elsewhere: Path) -> None:
    before = contents(tree.path)
    times = {model.name: model.last_used for model in store.models()}
    move(tree, elsewhere)
    assert tree.path.is_symlink()
    assert tree.place == elsewhere.resolve() / "models"
    assert contents(tree.path) == contents(tree.place) == before
    assert [model.is_gone for model in store.models()] == [False] * 3
    assert {model.name: model.last_used for model in store.models()} == times
    assert sorted(path.name for path in store.home.iterdir()) == ["locks", "models"]
    for model in store.models():
        store.verify(model)


def test_it_is_moved_on_and_back(tree: Tree, store: Store, elsewhere: Path, tmp_path: Path) -> None:
    before = contents(tree.path)
    move(tree, elsewhere)
    move(tree, tmp_path / "third")
    assert not (elsewhere / "models").exists()
    assert tree.place == (tmp_path / "third" / "models").resolve()
    assert contents(tree.path) == before
    move(tree, store.home)
    assert not tree.path.is_symlink()
    assert contents(tree.path) == before
    assert not (tmp_path / "third" / "models").exists()
    assert sorted(path.name for path in store.home.iterdir()) == ["locks", "models"]


def test_a_home_behind_a_link_is_moved_like_another(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    store = Store(tmp_path / "home", tmp_path / "hub")
    put_model(store, "me/model", "Q8_0")
    tree = trees.models_of(store.home)
    before = contents(tree.path)
    move(tree, elsewhere)
    assert contents(tree.path) == before
    move(tree, elsewhere)
    assert contents(tree.path) == before
    move(tree, store.home)
    assert contents(tree.path) == before
    assert not tree.path.is_symlink()
    move(tree, store.home)
    assert contents(tree.path) == before


def test_an_empty_store_is_moved_before_anything_is_in_it(store: Store, elsewhere: Path) -> None:
    store.home.mkdir(parents=True)
    tree = trees.models_of(store.home)
    move(tree, elsewhere)
    put_model(store, "me/model", "Q8_0")
    assert list((elsewhere / "models").rglob("*.gguf"))


def test_moving_to_where_it_is_does_nothing(tree: Tree, store: Store, elsewhere: Path) -> None:
    before = contents(tree.path)
    assert plan_move(tree, store.home).is_there
    move(tree, elsewhere)
    assert plan_move(tree, elsewhere).is_there
    move(tree, elsewhere)
    assert contents(tree.path) == before


def test_files_with_two_names_and_links_stay_so(tree: Tree, store: Store, elsewhere: Path, tmp_path: Path) -> None:
    folder = store.models()[0].folder
    assert folder is not None
    (tmp_path / "mine").write_text("mine")
    os.link(folder / "model-Q8_0.gguf", folder / "second.gguf")
    (folder / "inner").symlink_to("model-Q8_0.gguf")
    (folder / "outer").symlink_to(os.path.relpath(tmp_path / "mine", folder))
    move(tree, elsewhere)
    assert (folder / "second.gguf").samefile(folder / "model-Q8_0.gguf")
    assert os.readlink(folder / "inner") == "model-Q8_0.gguf"
    assert (folder / "inner").samefile(folder / "second.gguf")
    assert (folder / "outer").read_text() == "mine"


def test_a_begun_download_goes_along(tree: Tree, store: Store, elsewhere: Path) -> None:
    folder = store.home / "models" / "url" / "host" / "m" / "x" / "Q8_0"
    folder.mkdir(parents=True)
    (folder / "m.gguf.incomplete").write_bytes(b"half")
    (folder / "m.gguf.incomplete.json").write_text("{}")
    move(tree, elsewhere)
    assert (folder / "m.gguf.incomplete").read_bytes() == b"half"
    assert (folder / "m.gguf.incomplete.json").exists()


@pytest.mark.parametrize("place", ["models", "models/inside", "locks/inside"])
def test_a_place_within_the_store_is_refused(tree: Tree, store: Store, place: str) -> None:
    (store.home / "locks").mkdir(exist_ok=True)
    with pytest.raises(UsageError):
        plan_move(tree, store.home / place)


def test_a_place_that_is_taken_or_cannot_be_is_refused(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "full" / "models").mkdir(parents=True)
    (tmp_path / "full" / "models" / "mine.gguf").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        plan_move(tree, tmp_path / "full")
    with pytest.raises(UsageError, match="no folder"):
        plan_move(tree, tmp_path / "file")
    with pytest.raises(UsageError, match="no folder"):
        plan_move(tree, tmp_path / "not" / "mounted")
    with pytest.raises(UsageError):
        plan_move(tree, Path("\0"))


def test_too_little_room_is_said_before_anything_is_written(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(moving, "_device", lambda path: hash(str(path)))
    with pytest.raises(NotEnoughDisk):
        plan_move(tree, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_that_is_not_there_is_said_and_nothing_is_made_in_its_place(
    tree: Tree, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "mount").mkdir()
    move(tree, tmp_path / "mount" / "owm")
    (tmp_path / "mount").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="is not there"):
        store.models()
    with pytest.raises(StoreError, match="is not there"):
        plan_move(tree, tmp_path / "other")
    assert not (tmp_path / "mount").exists()
    (tmp_path / "away").rename(tmp_path / "mount")
    assert len(store.models()) == 3


def test_a_disk_that_gives_back_something_else_leaves_all_where_it_was(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(tree.path)

    def write_wrong(source: Path, partial: Path, **_: object) -> str:
        partial.write_bytes(b"wrong")
        return "0" * 64

    monkeypatch.setattr(os, "link", _no_links)
    monkeypatch.setattr(moving, "copy_into", write_wrong)
    with pytest.raises(Damaged):
        move(tree, tmp_path / "elsewhere")
    assert not tree.path.is_symlink()
    assert contents(tree.path) == before


def test_what_appears_in_the_old_place_after_the_switch_is_not_removed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switch = Tree.switch

    def and_write(self: Tree, target: Path) -> None:
        switch(self, target)
        (self.aside / "late.gguf").write_text("late")

    monkeypatch.setattr(Tree, "switch", and_write)
    said = move(tree, tmp_path / "elsewhere")
    assert (tree.aside / "late.gguf").read_text() == "late"
    assert any(isinstance(event, Warned) and "is left" in event.message for event in said)


def test_a_file_system_that_cannot_exchange_names_is_moved_in_two_steps(
    tree: Tree, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(tree.path)
    monkeypatch.setattr(trees, "exchange", lambda one, other: False)
    renames: list[Path] = []
    rename = os.rename

    def stop_after_the_first(source: Path, target: Path) -> None:
        if renames:
            raise KeyboardInterrupt
        renames.append(source)
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            move(tree, tmp_path / "elsewhere")
    assert not os.path.lexists(tree.path)
    assert len(store.models()) == 3  # whoever looks mends it
    assert contents(tree.path) == before
    move(tree, tmp_path / "elsewhere")
    assert sorted(path.name for path in store.home.iterdir()) == ["locks", "models"]


def test_a_move_to_elsewhere_undoes_one_that_was_cut_off(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(tree.path)
    with monkeypatch.context() as patched:
        patched.setattr(Tree, "switch", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(tree, tmp_path / "first")
    assert contents(tmp_path / "first" / "models") == before
    move(tree, tmp_path / "second")
    assert not (tmp_path / "first" / "models").exists()
    assert contents(tree.path) == before


def test_what_was_removed_meanwhile_does_not_come_back(
    tree: Tree, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Tree, "switch", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(tree, tmp_path / "first")
    store.remove(store.models()[0], remove_hub_files=lambda paths: None)
    put_model(store, "me/model1", "Q4_0", content=model_bytes(5000, 9))
    before = contents(tree.path)
    move(tree, tmp_path / "first")
    assert contents(tree.path) == before
    assert len(store.models()) == 3


def test_a_writer_waits_while_names_are_exchanged(tree: Tree, store: Store) -> None:
    folder = store.folder_of("hub", "me/model", "x", "Q8_0")
    with trees.moving_alone(store.home, print), trees.writers_out(tree, print), store.try_lock(folder) as is_ours:
        assert not is_ours
    with store.try_lock(folder) as is_ours:
        assert is_ours


def test_a_marker_of_a_killed_mover_keeps_nobody_waiting(tree: Tree, store: Store) -> None:
    (store.home / "locks").mkdir(exist_ok=True)
    (store.home / "locks" / trees.MARKER).touch()
    with store.lock(store.folder_of("hub", "me/model", "x", "Q8_0"), on_wait=lambda: pytest.fail("it waits")):
        assert not (store.home / "locks" / trees.MARKER).exists()


def test_the_hub_cache_keeps_its_links(store: Store, elsewhere: Path) -> None:
    repo = store.hub / "models--me--tiny"
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs" / "abc").write_text("content")
    (repo / "snapshots" / "1").mkdir(parents=True)
    (repo / "snapshots" / "1" / "m.gguf").symlink_to("../../blobs/abc")
    tree = trees.hub_of(store.home, store.hub)
    move(tree, elsewhere)
    assert store.hub.is_symlink()
    assert os.readlink(repo / "snapshots" / "1" / "m.gguf") == "../../blobs/abc"
    assert (elsewhere / "hub" / "models--me--tiny" / "snapshots" / "1" / "m.gguf").read_text() == "content"
    assert sorted(path.name for path in store.hub.parent.iterdir()) == ["hub"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _no_links(*_: object, **__: object) -> None:
    raise OSError(18, "another disk")
