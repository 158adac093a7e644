"""Links and second names where owm writes and removes: nothing outside the store is written, moved or removed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from owm import publishing
from owm.errors import OwmError, StoreError
from owm.library import certifying, exporting
from owm.store import inside, manifest, moving, pruning, pull, refs, removing, trees
from owm.store.adopting import linking
from owm.store.download import Digest, Transfer, download
from owm.store.local import Store
from owm.store.sources.placing import partial_of
from owm.store.transfers import note
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, Repo
from support.stored import put_model
from support.victim import Victim, plant, swapping

BODY = model_bytes(40_000, seed=3)
KINDS = ["link", "dangling link", "loop", "second name", "pipe"]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    made = Victim(tmp_path / "victim")
    yield made
    assert made.is_unharmed()


# -- files that are being written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_grows_goes_where_its_name_is_alone(kind: str, tmp_path: Path, victim: Victim) -> None:
    path = tmp_path / "file.incomplete"
    plant(kind, path, victim)
    for open_ in (publishing.open_partial, publishing.create_anew):
        with open(open_(path), "wb") as file:
            file.write(b"written")
        assert path.read_bytes() == b"written"
        assert not path.is_symlink()


def test_what_has_grown_already_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.incomplete"
    path.write_bytes(b"begun")
    with open(publishing.open_partial(path), "rb") as file:
        assert file.read() == b"begun"


def test_a_folder_in_the_way_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file.incomplete" / "inner").mkdir(parents=True)
    for open_ in (publishing.open_partial, publishing.create_anew):
        with pytest.raises(OSError, match=r"directory|permitted"):
            open_(tmp_path / "file.incomplete")
    assert (tmp_path / "file.incomplete" / "inner").is_dir()


def test_a_link_that_comes_and_goes_is_never_written_through(tmp_path: Path, victim: Victim) -> None:
    path = tmp_path / "file.incomplete"
    path.write_bytes(b"")
    with swapping(path, victim.file):
        for number in range(400):
            with suppress(OSError), open(publishing.open_partial(path), "wb") as file:
                file.write(b"written")
            with suppress(OSError):
                publishing.publish_text(tmp_path / "text", f"{number}\n")
    assert victim.is_unharmed()


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_writes_through_nothing_that_waits_for_it(
    kind: str, tmp_path: Path, victim: Victim, hub: HubServer
) -> None:
    hub.plain["m.gguf"] = BODY
    partial = tmp_path / "models" / "m.gguf.incomplete"
    for path in (partial, note.path_of(partial), note.path_of(partial).with_name(f"{partial.name}.json.new")):
        plant(kind, path, victim)
    note.path_of(partial).unlink()  # a pipe would be read for ever, a link be taken for a note
    digest = Digest("sha256", hashlib.sha256(BODY).hexdigest())
    download(Transfer(hub.url("m.gguf"), "m.gguf", len(BODY), digest), partial)
    assert partial.read_bytes() == BODY
    assert not partial.is_symlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pull_writes_through_nothing_that_waits_for_it(
    kind: str, store: Store, hub: HubServer, victim: Victim
) -> None:
    hub.plain["m-Q8_0.gguf"] = BODY
    plan = pull.plan(refs.parse(hub.url("m-Q8_0.gguf")), store)
    for name in ("m-Q8_0.gguf", "m-Q8_0.gguf.incomplete", f"manifest.json.{os.getpid()}.incomplete"):
        if (kind, name) != ("pipe", "m-Q8_0.gguf"):
            plant(kind, plan.folder / name, victim)
    model = pull.execute(plan, store, inspect=inspect)
    assert model.path.read_bytes() == BODY
    assert not any(path.is_symlink() for path in plan.folder.iterdir())


@pytest.mark.parametrize("kind", ["link", "dangling link", "second name"])
@pytest.mark.parametrize("way", ["hard", "sym", "copy"])
def test_an_import_writes_through_nothing_that_waits_for_it(
    way: linking.Link, kind: str, tmp_path: Path, victim: Victim
) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(BODY)
    target = tmp_path / "models" / "target.gguf"
    for path in (target, target.with_name("target.gguf.incomplete")):
        plant(kind, path, victim)
    linking.put(source, target, way)
    assert target.read_bytes() == BODY
    assert target.is_symlink() == (way == "sym")
    assert source.read_bytes() == BODY


@pytest.mark.parametrize("kind", ["link", "dangling link", "loop", "second name"])
def test_an_export_writes_through_nothing_that_waits_for_it(
    kind: str, store: Store, tmp_path: Path, victim: Victim
) -> None:
    put_model(store, "me/m", "Q8_0", content=BODY)
    target = tmp_path / "out.gguf"
    plant(kind, target, victim)
    plant(kind, partial_of(target), victim)
    model = store.find_stored("me/m:Q8_0")
    exporting.execute_export(exporting.plan_export(model, str(target), store, replaces=True))
    assert target.read_bytes() == BODY
    assert not target.is_symlink()


# -- folders to which a link leads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_link_among_the_models_leads_no_pull_elsewhere(
    depth: int, store: Store, hub: HubServer, victim: Victim
) -> None:
    hub.add(Repo("me/m", {"m-Q8_0.gguf": BODY}))
    plan = pull.plan(refs.parse("me/m"), store)
    at = Path(*plan.folder.relative_to(store.home).parts[: 1 + depth])
    (store.home / at).parent.mkdir(parents=True)
    (store.home / at).symlink_to(victim.folder)
    with pytest.raises(StoreError, match="is a link, and owm writes nothing"):
        pull.execute(plan, store, inspect=inspect)


def test_models_on_another_disk_are_no_such_link(store: Store, tmp_path: Path) -> None:
    put_model(store, "me/m", "Q8_0", content=BODY)
    (tmp_path / "disk").mkdir()
    moving.execute_move(moving.plan_move(trees.models_of(store.home), tmp_path / "disk"))
    assert (store.home / "models").is_symlink()
    removing.remove(store.find_exactly("me/m:Q8_0"), store, remove_hub_files=lambda paths: None)
    assert store.models() == []
    assert list((tmp_path / "disk" / "models").iterdir()) == []


def test_a_model_goes_and_what_its_links_lead_to_stays(store: Store, victim: Victim) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    (folder / "folder").symlink_to(victim.folder)
    (folder / "file").symlink_to(victim.file)
    (folder / "own").mkdir()
    (folder / "own" / "inner").symlink_to(victim.folder)
    (folder / "loop").symlink_to("loop")
    os.link(victim.file, folder / "second")
    removing.remove(store.find_exactly("me/m:Q8_0"), store, remove_hub_files=lambda paths: None)
    assert not folder.exists()


def test_a_link_for_a_model_file_goes_and_the_file_stays(store: Store, victim: Victim) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    file = folder / "model-Q8_0.gguf"
    file.unlink()
    file.symlink_to(victim.file)
    assert removing.remove(store.find_exactly("me/m:Q8_0"), store, remove_hub_files=lambda paths: None) == 0


def test_a_model_whose_folder_becomes_a_link_while_it_is_removed(store: Store, victim: Victim) -> None:
    """At every moment either its own folder is emptied or nothing is."""
    n_removed = 0
    for _ in range(40):
        folder = put_model(store, "me/m", "Q8_0", content=b"GGUF")
        (folder / "precious").write_text("of the model")
        model = store.find_exactly("me/m:Q8_0")
        with swapping(folder, victim.folder), suppress(OwmError):
            removing.remove(model, store, remove_hub_files=lambda paths: None)
            n_removed += 1
        assert victim.is_unharmed()
        for left in (folder, folder.with_name(f"{folder.name}.aside"), folder.with_name(f"{folder.name}.link")):
            if left.is_symlink():
                left.unlink()
            elif left.is_dir():
                for path in left.iterdir():
                    path.unlink()
                left.rmdir()


def test_a_folder_that_was_exchanged_after_it_was_looked_at_is_not_opened(store: Store, victim: Victim) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    top = store.home / "models"
    with inside.opened(folder, top) as here:
        os.rename(folder, folder.with_name("aside"))
        folder.symlink_to(victim.folder)
        for name in inside.names(here):
            inside.remove(name, here)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"), inside.opened(folder, top):
        pass
    with pytest.raises(OSError, match=r"Not a directory|symbolic"), inside.opened(folder / "sub", top):
        pass


def test_prune_follows_no_link_and_removes_no_folder_by_way_of_one(store: Store, victim: Victim) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    stray = folder.parent / "stray"
    stray.mkdir()
    (stray / "x.gguf.incomplete").write_bytes(b"begun")
    (stray / "link.gguf").symlink_to(victim.file)
    (folder.parent / "other").symlink_to(victim.folder)
    planned = pruning.plan(store)
    assert [each.path.name for each in planned] == ["x.gguf.incomplete"]
    os.rename(stray, folder.parent / "aside")
    stray.symlink_to(victim.folder)
    (victim.folder / "x.gguf.incomplete").write_bytes(b"somebody's")
    try:
        with suppress(StoreError):
            list(pruning.execute(planned, store))
        assert (victim.folder / "x.gguf.incomplete").read_bytes() == b"somebody's"
    finally:
        (victim.folder / "x.gguf.incomplete").unlink()


def test_a_move_copies_links_and_not_what_they_lead_to(store: Store, tmp_path: Path, victim: Victim) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    (folder / "folder").symlink_to(victim.folder)
    (folder / "nothing").symlink_to(victim.folder / "nothing")
    (folder / "loop").symlink_to("loop")
    disk = tmp_path / "disk"
    disk.mkdir()
    moving.execute_move(moving.plan_move(trees.models_of(store.home), disk))
    moved = disk / "models" / folder.relative_to(store.home / "models")
    assert os.readlink(moved / "folder") == str(victim.folder)
    assert os.readlink(moved / "loop") == "loop"
    assert not any(path.name == "precious" for path in disk.rglob("*") if not path.is_symlink())


def test_a_move_does_not_copy_into_a_link_that_waits_there(store: Store, tmp_path: Path, victim: Victim) -> None:
    source, partial = tmp_path / "source", tmp_path / f"copy{moving.SUFFIX}"
    source.write_bytes(BODY)
    for kind in KINDS:
        plant(kind, partial, victim)
        moving.copy_into(source, partial)
        assert partial.read_bytes() == BODY
        partial.unlink()


def test_a_loop_among_the_models_ends_nothing(store: Store) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    (folder.parent / "round").symlink_to(folder.parent.parent)
    assert [model.name for model in store.models()] == ["me/m"]
    assert pruning.plan(store) == []


# -- manifests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../../victim/precious", "models/../../victim/precious", "/etc/passwd", "a\\..\\b"])
@pytest.mark.parametrize("root", ["owm", "hub"])
def test_a_manifest_that_names_files_outside_removes_and_repairs_none(
    path: str, root: str, store: Store, victim: Victim
) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    text = (folder / manifest.FILE_NAME).read_text()
    own = f"{folder.relative_to(store.home).as_posix()}/model-Q8_0.gguf"
    assert own in text
    said = text.replace(own, path.replace("\\", "\\\\")).replace('"root": "owm"', f'"root": "{root}"')
    (folder / manifest.FILE_NAME).write_text(said)
    problems: list[OwmError] = []
    assert store.models(problems) == []
    assert "a path leaves its root" in str(problems[0])


def test_a_manifest_cannot_have_a_file_of_the_users_removed(store: Store, victim: Victim) -> None:
    folder = put_model(store, "me/m", "Q8_0", content=BODY)
    text = (folder / manifest.FILE_NAME).read_text()
    own = f"{folder.relative_to(store.home).as_posix()}/model-Q8_0.gguf"
    said = text.replace(own, str(victim.file)).replace('"root": "owm"', '"root": "outside"')
    (folder / manifest.FILE_NAME).write_text(said)
    model = store.find_exactly("me/m:Q8_0")
    assert model.path == victim.file
    removing.remove(model, store, remove_hub_files=lambda paths: pytest.fail("it is not the Hub's"))
    assert victim.file.exists()


# -- certificates ------------------------------------------------------------------------------------------------------


def test_what_is_written_into_a_model_is_written_into_no_other_name_of_it(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(BODY)
    assert certifying.is_alone(file)
    os.link(file, tmp_path / "theirs.gguf")
    assert not certifying.is_alone(file)
    (tmp_path / "link.gguf").symlink_to(file)
    assert not certifying.is_alone(tmp_path / "link.gguf")


# -- a text that the user names a file for -----------------------------------------------------------------------------


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    publishing.save_text(pipe, "said")
    assert os.read(reading, 10) == b"said"
    os.close(reading)
    assert pipe.is_fifo()


def test_a_link_of_the_users_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("before")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    publishing.save_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
