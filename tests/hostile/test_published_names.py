"""Names that sources publish, and that would be paths to elsewhere: each source refuses them or makes them safe."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from owm.errors import Damaged, OwmError
from owm.store import pull, refs
from owm.store.local import Store
from owm.store.names import MAX_PATH_BYTES, check_repo_path, safe_component, safe_path
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, Repo
from support.modelscope_server import ModelScopeServer
from support.registry_server import Blob, RegistryServer, manifest_of

pytestmark = pytest.mark.slow

BODY = model_bytes(20_000)
NAMES = [
    "../{}", "../../../../../../{}", "a/../../{}", "/tmp/{}", "//host/share/{}", "C:/{}", "c:{}", "..\\..\\{}",
    "\\\\host\\share\\{}", "./{}", "a//{}", "a/./{}", "a\x00/{}", "a\n{}", "a\r{}", "\x1b]0;owned\x07{}", "\x9b2J{}",
    "a\u202e{}", "a\u2066{}", "a\u200f{}", "a\u2028{}", "x" * 300 + "{}", "/".join(["x" * 100] * 20) + "/{}",
]  # fmt: skip
ROLES = {
    "model": "m-Q8_0.gguf",
    "projector": "mmproj-m-f16.gguf",
    "shard": "m-Q8_0-00001-of-00002.gguf",
    "advice": "generation_config.json",
    "beside": "README.md",
}
TITLE, FILEPATH = "org.opencontainers.image.title", "org.cncf.model.filepath"
EMPTY = Blob("application/vnd.oci.empty.v1+json", b"{}")


@pytest.fixture
def outside(store: Store, tmp_path: Path) -> Iterator[Callable[[], list[Path]]]:
    """Tell what lies outside the store and the Hub cache; it has to be the same in the end."""
    (tmp_path / "precious").write_text("mine")

    def look() -> list[Path]:
        places = (store.home, store.hub.parent)
        near = [*tmp_path.parent.iterdir(), *tmp_path.rglob("*")]
        return sorted(path for path in near if not any(map(path.is_relative_to, places)))

    before = look()
    yield look
    assert look() == before
    assert (tmp_path / "precious").read_text() == "mine"


def published(name: str, role: str) -> dict[str, bytes]:
    return {**({"m-Q8_0.gguf": BODY} if role != "model" else {}), name.format(ROLES[role]): BODY}


def refused(store: Store, ref: str) -> None:
    with pytest.raises(Damaged, match="unsafe name") as caught:
        pull.execute(pull.plan(refs.parse(ref), store), store, inspect=inspect)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("role", ROLES)
def test_the_hub(role: str, hub: HubServer, store: Store) -> None:
    """A repo that lists one such file is refused as a whole, before anything is fetched."""
    for name in NAMES:
        hub.add(Repo("me/m", published(name, role)))
        refused(store, "me/m")
    assert hub.transfers() == []


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("role", ["model", "projector", "advice"])
def test_modelscope(role: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelScopeServer({f"me/m{number}": published(name, role) for number, name in enumerate(NAMES)}) as server:
        monkeypatch.setenv("MODELSCOPE_DOMAIN", server.base)
        for number in range(len(NAMES)):
            refused(store, f"modelscope:me/m{number}")


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("key", [TITLE, FILEPATH])
def test_titles_of_layers(key: str, registry: RegistryServer, store: Store) -> None:
    """Whatever a title says, each file has a name of owm's or a safe one, in the model's folder."""
    docker = "application/vnd.docker.ai"
    for number, name in enumerate(NAMES):
        named = [
            Blob(f"{docker}.gguf.v3", model_bytes(5000, seed=number), {key: name.format("m-Q8_0.gguf")}),
            Blob(f"{docker}.mmproj", model_bytes(900), {key: name.format("mmproj-m.gguf")}),
            Blob(f"{docker}.license", b"MIT License", {key: name.format("LICENSE")}),
            Blob(f"{docker}.chat.template.jinja", b"{{ messages }}", {key: name.format("chat_template.jinja")}),
            Blob(f"{docker}.model.file", b'{"top_k": 3}', {key: name.format("generation_config.json")}),
        ]
        registry.put(f"o/m{number}", "latest", manifest_of(named, EMPTY), [EMPTY, *named])
        plan = pull.plan(refs.parse(f"oci://{registry.host}/o/m{number}"), store)
        model = pull.execute(plan, store, inspect=inspect)
        assert model.path.parent == model.folder
    for path in store.home.joinpath("models").rglob("*"):
        assert str(path).isascii()
        assert str(path).isprintable()


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("is_link", [False, True])
def test_members_of_layers(is_link: bool, registry: RegistryServer, store: Store, tmp_path: Path) -> None:
    """An image's layer is an archive: a member is taken by its place in it, and links are nobody's."""
    for number, name in enumerate(NAMES):
        if "\0" in name:
            continue  # no name of a tar's
        layer = Blob("application/vnd.oci.image.layer.v1.tar", tar(name.format("m-Q8_0.gguf"), is_link, tmp_path))
        registry.put(f"o/tar{number}", "latest", manifest_of([layer], EMPTY), [EMPTY, layer])
        try:
            plan = pull.plan(refs.parse(f"oci://{registry.host}/o/tar{number}"), store)
            model = pull.execute(plan, store, inspect=inspect)
        except OwmError:
            continue
        assert not is_link
        assert model.path.parent == model.folder
        assert model.path.read_bytes() == BODY
    for path in store.home.rglob("*"):
        assert str(path).isprintable()
        assert not path.is_symlink()


def tar(name: str, is_link: bool, top: Path) -> bytes:
    """Return an archive with a model of that name, or with a link of it and a file that would go by way of the link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        if is_link:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(top / "precious")
            archive.addfile(link)
        member = tarfile.TarInfo(name)
        member.size = 0 if is_link else len(BODY)
        archive.addfile(member, io.BytesIO(b"" if is_link else BODY))
    return packed.getvalue()


@pytest.mark.parametrize(
    "path", ["..%2f..%2fm-Q8_0.gguf", "a%00-Q8_0.gguf", "..%5c..%5cm-Q8_0.gguf",
             "%1b]0;owned%07-Q8_0.gguf", "C%3am-Q8_0.gguf", "x" * 300 + "-Q8_0.gguf", "%e2%80%aem-Q8_0.gguf"],
)  # fmt: skip
def test_an_address_gives_a_file_a_safe_name(path: str, hub: HubServer, store: Store) -> None:
    hub.plain[unquote(path)] = BODY
    plan = pull.plan(refs.parse(f"{hub.endpoint}/plain/{path}"), store)
    names = [file.path for file in plan.offer.files]
    for name in names:
        assert name == safe_component(name) or len(name) <= 130
        assert Path(store.home, name).parent == store.home
        assert name.isascii()
        assert name.isprintable()
    assert plan.folder.resolve().is_relative_to(store.home / "models")


def test_a_path_in_a_folder_of_the_store_stays_in_it(tmp_path: Path) -> None:
    """What is made of any text, also where nobody has looked at it before."""
    for name in NAMES:
        made = Path(os.path.normpath(tmp_path / safe_path(name.format("m.gguf"))))
        assert made.is_relative_to(tmp_path)
        assert str(made).isprintable()
        assert all(len(part.encode()) <= 255 for part in made.parts)


def test_the_longest_path_that_is_taken() -> None:
    path = "/".join(["x" * 63] * 16)
    assert len(path) == MAX_PATH_BYTES - 1
    assert check_repo_path(path) == path
    with pytest.raises(Damaged, match="unsafe name") as caught:
        check_repo_path(path + "/" + "é" * 300_000)
    assert len(str(caught.value)) < 400


def test_names_are_no_fields_of_a_manifest(store: Store) -> None:
    """The folder of a model is made of names that strangers give: revision and label too."""
    for text in ("..", "../..", "/", "a/../../b", "\x1b[2J", "C:", "con\x00"):
        folder = store.folder_of(text, f"{text}/{text}", text, text)
        assert folder.resolve().is_relative_to(store.home / "models")
        assert ".." not in folder.parts
        assert json.dumps(str(folder)).isascii()
