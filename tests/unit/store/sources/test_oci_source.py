"""OCI registries: the real docker-registry, and a server of our own that asks for tokens and misbehaves."""

import base64
import gzip
import io
import json
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.errors import AccessDenied, Damaged, ModelNotFound, NoUsableFile, Unsupported, UsageError
from owm.events import ignore
from owm.library.keeping import inspect_file
from owm.store import extras, pull
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.registry_server import (
    OCI_INDEX,
    OCI_MANIFEST,
    OLLAMA,
    Blob,
    RegistryServer,
    docker_registry,
    json_blob,
    manifest_of,
    ollama_model,
    push,
    registry_program,
)
from support.run import finish, run, start
from support.tiny_gguf import tiny_gguf

GGUF = model_bytes(200_000)
DOCKER = "application/vnd.docker.ai"
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
EMPTY = Blob("application/vnd.oci.empty.v1+json", b"{}")
LAYER = "application/vnd.oci.image.layer.v1.tar"
MIT = b"MIT License\n\nPermission is hereby granted"

Published = tuple[tuple[str, bytes], list[Blob]]


def published(*layers: Blob, config: Blob = EMPTY, **more: object) -> Published:
    """Return a manifest and its blobs."""
    return manifest_of(layers, config, **more), [config, *layers]


def docker_model(*layers: Blob, quantization: str = "MOSTLY_Q4_K_M") -> Published:
    """Return a model as Docker's model runner packs it."""
    stated = {"config": {"format": "gguf", "quantization": quantization, "architecture": "llama"}}
    return published(*layers, config=json_blob(f"{DOCKER}.model.config.v0.1+json", stated))


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """Return an archive, as a layer of an image is one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return packed.getvalue()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as base:
        yield base


def test_the_registry_of_these_tests_is_the_real_one() -> None:
    program = registry_program()
    if program is None:
        pytest.skip("docker-registry is missing and cannot be fetched: `apt-get install docker-registry`")
    assert "docker/distribution" in subprocess.run([program, "--version"], capture_output=True, text=True).stdout


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


def planned(store: Store, ref: str) -> PullPlan:
    plan = pull.plan(parse(ref), store)
    assert isinstance(plan, PullPlan)
    return plan


def fetch(store: Store, ref: str) -> StoredModel:
    return pull.execute(planned(store, ref), store, inspect=inspect)


def host(base: str) -> str:
    return base.removeprefix("http://")


SHAPES: dict[str, Published] = {
    "docker": docker_model(Blob(f"{DOCKER}.gguf.v3", GGUF)),
    "docker-filepath": docker_model(Blob(f"{DOCKER}.gguf.v3", GGUF, {FILEPATH: "model.gguf"})),
    "docker-old": docker_model(Blob(f"{DOCKER}.model.file.v1+gguf", GGUF)),
    "oras": published(Blob(LAYER, GGUF, {TITLE: "tiny-Q4_K_M.gguf"})),
    "podman-artifact": published(
        Blob("application/octet-stream", GGUF, {TITLE: "tiny-Q4_K_M.gguf"}),
        artifactType="application/vnd.cnai.model.manifest.v1+json",
    ),
    "cncf-raw": published(
        Blob("application/vnd.cncf.model.weight.v1.raw", GGUF, {FILEPATH: "sub/tiny-Q4_K_M.gguf"}),
        Blob("application/vnd.cncf.model.doc.v1.raw", b"# Tiny", {FILEPATH: "README.md"}),
    ),
    "cnai-untitled": published(Blob("application/vnd.cnai.model.weight.v1.raw", GGUF)),
    "cncf-tar": published(
        Blob(
            "application/vnd.cncf.model.weight.v1.tar", tar({"tiny-Q4_K_M.gguf": GGUF}), {FILEPATH: "tiny-Q4_K_M.gguf"}
        )
    ),
    "image-tar": published(
        Blob(LAYER, tar({"etc/passwd": b"root"})),
        Blob(LAYER, tar({"models/a.json": b"{}", "models/m/tiny-Q4_K_M.gguf": GGUF}, {"models/model.file": "m/x"})),
    ),
    "image-gzip": published(
        Blob(f"{LAYER}+gzip", gzip.compress(tar({"etc/passwd": b"root"}))),
        Blob(f"{LAYER}+gzip", gzip.compress(tar({"models/a.json": b"{}", "models/m/tiny-Q4_K_M.gguf": GGUF}))),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_models_in_every_form_of_the_tools_come_from_a_real_registry(store: Store, real: str, shape: str) -> None:
    push(real, f"shapes/{shape}", "v1", *SHAPES[shape])
    ref = f"oci://{host(real)}/shapes/{shape}:v1"
    plan = planned(store, ref)
    assert plan.size_bytes == len(GGUF)
    if shape != "image-gzip":
        file = plan.variant.files[0]
        assert plan.source.read(plan.offer, file, 0, 8) == GGUF[:8]
        assert plan.source.read(plan.offer, file, len(GGUF) - 4, 100) == GGUF[-4:]
    model = pull.execute(plan, store, inspect=inspect)
    assert model.path.read_bytes() == GGUF
    assert model.label == ("v1" if shape == "cnai-untitled" else "Q4_K_M") or shape == "cnai-untitled"
    assert store.find(parse(ref)) == model
    assert [path.name for path in store.home.rglob("*") if "incomplete" in path.name or "layer-" in path.name] == []
    store.verify(model)


def test_a_real_model_is_whole_and_its_header_read_before(store: Store, real: str) -> None:
    content = tiny_gguf()
    push(real, "ai/tiny", "latest", *docker_model(Blob(f"{DOCKER}.gguf.v3", content), quantization="F32"))
    model = pull.execute(planned(store, f"oci://{host(real)}/ai/tiny"), store, inspect=inspect_file)
    assert model.path.name == "tiny-latest-F32.gguf"
    assert model.manifest is not None
    assert model.manifest.facts.architecture == "llama"


@pytest.mark.parametrize("titled", [True, False])
def test_parts_stay_together(store: Store, real: str, titled: bool) -> None:
    parts = [model_bytes(1000, seed=i) for i in range(3)]
    layers = [
        Blob(f"{DOCKER}.gguf.v3", part, {FILEPATH: f"big-{i:05d}-of-00003.gguf"} if titled else {})
        for i, part in enumerate(parts, 1)
    ]
    push(real, "ai/big", "x" if titled else "y", *docker_model(*layers))
    model = fetch(store, f"oci://{host(real)}/ai/big:{'x' if titled else 'y'}")
    assert [path.read_bytes() for path in model.files] == parts
    assert model.path.name.endswith("-00001-of-00003.gguf")


def test_projector_licence_template_and_advice_are_told_apart(store: Store, real: str) -> None:
    layers = [
        Blob(f"{DOCKER}.gguf.v3", GGUF),
        Blob(f"{DOCKER}.mmproj", model_bytes(900)),
        Blob(f"{DOCKER}.license", MIT),
        Blob(f"{DOCKER}.chat.template.jinja", b"{{ messages }}"),
        Blob(f"{DOCKER}.model.file", b'{"temperature": 0.3}', {FILEPATH: "generation_config.json"}),
    ]
    push(real, "ai/vision", "latest", *docker_model(*layers))
    plan = planned(store, f"oci://{host(real)}/ai/vision")
    assert plan.licence == "mit"
    assert [file.path for file in plan.variant.files] == ["vision-latest-Q4_K_M.gguf"]
    assert [file.path for file in plan.offer.files][1:] == ["mmproj-1.gguf"]
    plan.folder.mkdir(parents=True)
    records = extras.fetch(plan.source, plan.offer, plan.folder, store)
    assert {record.role: store.file_path(record).read_bytes() for record in records} == {
        "licence": MIT,
        "template": b"{{ messages }}",
        "generation_config": b'{"temperature": 0.3}',
    }


def test_several_quants_are_chosen_from(store: Store, real: str) -> None:
    layers = [Blob("application/octet-stream", model_bytes(500, seed=i), {TITLE: f"m-{q}.gguf"}) for i, q in
              enumerate(("Q8_0", "Q4_K_M"))]  # fmt: skip
    push(real, "o/two", "latest", *published(*layers))
    ref = f"oci://{host(real)}/o/two"
    assert fetch(store, ref).label == "Q4_K_M"
    other = fetch(store, f"{ref}:latest:Q8_0")
    assert other.label == "Q8_0"
    assert store.find(parse(store.shown_name(other))) == other


def test_an_index_leads_to_the_model(store: Store, real: str) -> None:
    model = SHAPES["image-tar"]
    digest = push(real, "r/car", "inner", *model)
    attestation = push(real, "r/car", "other", *published(Blob("application/vnd.in-toto+json", b"{}")))
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": attestation,
            "size": 1,
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
        {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(model[0][1]), "platform": {"architecture": "s390x"}},
    ]
    stated = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    top = push(real, "r/car", "latest", (OCI_INDEX, json.dumps(stated).encode()), [])
    found = fetch(store, f"oci://{host(real)}/r/car@{top}")
    assert found.path.read_bytes() == GGUF
    assert found.manifest is not None
    assert f"sha256:{found.manifest.commit}" == top


def test_a_tag_that_is_not_there_names_those_that_are(store: Store, real: str) -> None:
    push(real, "o/tags", "v1", *SHAPES["docker"])
    with pytest.raises(ModelNotFound, match="has no tag v2") as caught:
        planned(store, f"oci://{host(real)}/o/tags:v2")
    assert caught.value.hint == "it has: v1"


def test_a_password_of_dockers_config_file_is_used(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with docker_registry(tmp_path / "registry", password=True) as base:
        push(base, "o/private", "latest", *SHAPES["docker"], auth=("me", "hunter2"))
        ref = f"oci://{host(base)}/o/private"
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        with pytest.raises(AccessDenied, match="refuses o/private") as caught:
            planned(store, ref)
        assert "docker login" in (caught.value.hint or "")
        (tmp_path / "docker").mkdir()
        auth = base64.b64encode(b"me:hunter2").decode()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host(base): {"auth": auth}}}))
        assert fetch(store, ref).path.read_bytes() == GGUF
        (tmp_path / "docker/config.json").write_text(json.dumps({"credsStore": "desktop"}))
        with pytest.raises(AccessDenied) as caught:
            planned(store, ref)
        assert "docker-credential-desktop, which owm does not run" in (caught.value.hint or "")
    written = b"".join(path.read_bytes() for path in store.home.rglob("*") if path.is_file())
    assert b"hunter2" not in written
    assert auth.encode() not in written


def test_a_password_becomes_a_token_and_goes_no_further(
    store: Store, server: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.needs_token, server.user = True, ("me", "hunter2")
    server.put("o/m", "latest", *SHAPES["docker"])
    auth = base64.b64encode(b"me:hunter2").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {f"https://{server.host}/v1/": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert fetch(store, f"oci://{server.host}/o/m").path.read_bytes() == GGUF
    assert all(auth not in str(seen.headers) for seen in server.asked("registry") + server.asked("cdn"))
    assert all("authorization" not in seen.headers for seen in server.asked("cdn"))


def test_files_of_a_source_made_anew_are_let_in_too(store: Store, server: RegistryServer) -> None:
    server.needs_token = True
    server.put("o/m", "latest", *SHAPES["docker"])
    plan = planned(store, f"oci://{server.host}/o/m")
    again = type(plan.source)()  # type: ignore[call-arg]
    assert again.read(plan.offer, plan.variant.files[0], 0, 4) == b"GGUF"


@pytest.mark.parametrize("realm", ["http://example.org/token", "ftp://x/token", "", "https://u:p@example.org/t"])
def test_a_place_for_tokens_that_is_not_safe_is_not_asked(store: Store, server: RegistryServer, realm: str) -> None:
    server.needs_token, server.realm = True, realm
    server.put("o/m", "latest", *SHAPES["docker"])
    if realm == "":
        server.realm = "nowhere"
    with pytest.raises(Damaged, match="not safe"):
        planned(store, f"oci://{server.host}/o/m")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../../../evil.gguf", "evil.gguf"),
        ("/etc/evil.gguf", "evil.gguf"),
        ("..\\..\\evil.gguf", "evil.gguf"),
        ("\x1b[31mred.gguf", "_[31mred"),
        ("x" * 300 + ".gguf", "xxxx"),
        (".gguf", ""),
        ("..gguf", ""),
        ("mmproj.txt", ""),
    ],
)
def test_hostile_titles_stay_in_their_folder(store: Store, server: RegistryServer, title: str, name: str) -> None:
    server.put("o/m", "latest", *published(Blob(f"{DOCKER}.gguf.v3", GGUF, {TITLE: title})))
    model = fetch(store, f"oci://{server.host}/o/m")
    assert model.path.parent == model.folder
    assert all(32 < ord(c) < 127 for c in model.path.name)
    assert len(model.path.name) < 200
    if name.startswith(("evil", "xxxx")):
        assert model.path.name.startswith(name)


def test_names_that_differ_in_case_only_are_refused(store: Store, server: RegistryServer) -> None:
    layers = [Blob("application/octet-stream", model_bytes(500, seed=i), {TITLE: name}) for i, name in
              enumerate(("m-Q8_0.gguf", "M-q8_0.gguf"))]  # fmt: skip
    server.put("o/m", "latest", *published(*layers))
    with pytest.raises(Damaged, match="two files with the same name"):
        planned(store, f"oci://{server.host}/o/m")


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        ([Blob(f"{DOCKER}.safetensors", b"x", {FILEPATH: "model.safetensors"})], NoUsableFile, "no GGUF file"),
        ([], NoUsableFile, "no GGUF file"),
        ([Blob(f"{LAYER}+gzip", gzip.compress(tar({"bin/sh": b"x"})))], NoUsableFile, "no GGUF file"),
        ([Blob(f"{LAYER}+gzip", b"\x1f\x8bgarbage")], NoUsableFile, "no GGUF file"),
        ([Blob(LAYER, b"garbage" * 1000)], NoUsableFile, "no GGUF file"),
        ([Blob(f"{LAYER}+zstd", b"\x28\xb5\x2f\xfdx")], Unsupported, "packed with zstd"),
        ([Blob("text/html", b"<html>")], NoUsableFile, "no GGUF file"),
    ],
)
def test_what_holds_no_model_is_refused(
    store: Store, server: RegistryServer, layers: list[Blob], error: type[Exception], match: str
) -> None:
    server.put("o/m", "latest", *published(*layers))
    with pytest.raises(error, match=match):
        planned(store, f"oci://{server.host}/o/m")


def test_an_archive_that_lies_about_a_size_is_refused(store: Store, server: RegistryServer) -> None:
    packed = bytearray(tar({"m-Q8_0.gguf": GGUF}))
    lying = tarfile.TarInfo("m-Q8_0.gguf")
    lying.size = 1 << 33
    packed[:512] = lying.tobuf(tarfile.GNU_FORMAT)
    server.put("o/m", "plain", *published(Blob(LAYER, bytes(packed))))
    server.put("o/m", "packed", *published(Blob(f"{LAYER}+gzip", gzip.compress(bytes(packed)))))
    with pytest.raises(NoUsableFile):
        planned(store, f"oci://{server.host}/o/m:plain")
    plan = planned(store, f"oci://{server.host}/o/m:packed")
    with pytest.raises(Damaged, match="ends before the file does"):
        plan.source.fetch(plan.offer, plan.variant.files, plan.folder, check=lambda path, name: None, sink=ignore)
    assert [path for path in store.home.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_room_for_a_layer_and_its_file_is_counted(store: Store, server: RegistryServer) -> None:
    layer = gzip.compress(tar({"m-Q8_0.gguf": GGUF}))
    server.put("o/m", "latest", *published(Blob(f"{LAYER}+gzip", layer)))
    plan = planned(store, f"oci://{server.host}/o/m")
    assert plan.source.partial_bytes(plan.offer, plan.variant.files, plan.folder) == -len(layer)


def test_a_model_of_ollamas_in_any_registry(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "1m", *ollama_model(GGUF, Blob(f"{OLLAMA}.projector", GGUF[:100])))
    model = fetch(store, f"oci://{server.host}/library/tiny:1m")
    assert (model.path.name, model.path.read_bytes()) == ("tiny-1m-Q8_0.gguf", GGUF)


@pytest.mark.parametrize("moment", ["transferred", "checked"])
def test_after_a_kill_a_layer_that_arrived_is_not_fetched_again(
    store: Store, server: RegistryServer, moment: str
) -> None:
    server.put("o/m", "latest", *SHAPES["image-gzip"])
    pulling = ["-m", "support.pull_model", f"oci://{server.host}/o/m"]
    assert run([*pulling, "--die-when", moment]).exit_code == -signal.SIGKILL
    assert (store.models(), list(store.home.rglob("*.gguf"))) == ([], [])
    digest = SHAPES["image-gzip"][1][-1].digest

    def fetched() -> list[str]:
        ranges = [seen.headers.get("range", "") for seen in server.asked("cdn", digest) if seen.method == "GET"]
        return [each for each in ranges if each not in ("bytes=0-511", "bytes=0-1048575")]

    before = fetched()
    result = run(pulling)
    assert result.exit_code == 0, result + result.stderr
    assert fetched() == before
    (model,) = store.models()
    assert model.path.read_bytes() == GGUF
    assert [path.name for path in store.home.rglob("*") if "incomplete" in path.name or "layer-" in path.name] == []


def test_two_processes_make_one_download(store: Store, server: RegistryServer) -> None:
    server.put("o/m", "latest", *SHAPES["docker"])
    both = [start(["-m", "support.pull_model", f"oci://{server.host}/o/m"]) for _ in range(2)]
    assert [finish(each).exit_code for each in both] == [0, 0]
    (model,) = store.models()
    assert model.path.read_bytes() == GGUF


def test_a_digest_must_be_whole_to_be_asked_for(store: Store) -> None:
    with pytest.raises(UsageError, match="64 digits"):
        planned(store, "oci://127.0.0.1:9/o/m@sha256:abcdef0123")
