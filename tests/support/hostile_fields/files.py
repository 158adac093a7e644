"""Model files, checkpoints and the store: names of files, metadata, tensors, and what a manifest says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from owm.formats.gguf_writer import TensorHeader, encode_header
from owm.store import manifest
from support.hostile_fields import Stage, Words, case
from support.hostile_text import ESCAPES, IN_FILE_NAME, planted
from support.stored import put_model
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

SHORT = ESCAPES.partition("\x07")[0]  # the names of tensors are


def store_a_model(stage: Stage) -> str:
    """Store a model whose manifest and header are hostile in every field that takes it; return its name."""
    gguf = tiny_gguf(metadata=(("general.name", planted("title")), ("general.license", planted("gguflicence"))))
    folder = put_model(stage.store, "acme/model", "Q8_0", content=gguf)
    found = manifest.parse((folder / "manifest.json").read_text("utf-8"), folder)
    hostile = replace(
        found,
        **{name: planted(name) for name in ("licence", "revision", "commit", "owner", "source", "name", "label")},
        created_at=planted("created"),
        facts=replace(found.facts, architecture=planted("arch"), name=planted("factsname")),
    )
    manifest.write(hostile, folder)
    return "acme/model"


def write_file(stage: Stage, field: str = "file") -> Path:
    """Write a model file with a hostile name."""
    return write_tiny_gguf(stage.folder / f"{field}{IN_FILE_NAME}.gguf", n_blocks=1)


@case("list", "licence", "owner")
def plant_list(stage: Stage) -> Words:
    store_a_model(stage)
    return ["list", "--all"]


@case("list, a manifest that is none", "folder")
def plant_broken_manifest(stage: Stage) -> Words:
    folder = stage.store.home / "models" / "hub" / f"folder{IN_FILE_NAME}" / "m" / ("a" * 40) / "Q8_0"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return ["ls"]


@case("show", "title", "licence", "commit", "created", "owner")
def plant_show(stage: Stage) -> Words:
    return ["show", store_a_model(stage)]


@case("show, as JSON")
def plant_show_json(stage: Stage) -> Words:
    return ["show", store_a_model(stage), "--json"]


@case("show --template", "template")
def plant_template(stage: Stage) -> Words:
    write_tiny_gguf(stage.folder / "m.gguf", chat_template="{{ messages[0].content }}" + planted("template"))
    return ["show", "--template", "./m.gguf"]


@case("show, a file", "file")
def plant_show_file(stage: Stage) -> Words:
    return ["show", write_file(stage)]


@case("path", "file")
def plant_path(stage: Stage) -> Words:
    return ["path", write_file(stage)]


@case("verify", "file")
def plant_verify(stage: Stage) -> Words:
    name = store_a_model(stage)
    folder = next(stage.store.home.rglob("manifest.json")).parent
    found = manifest.parse((folder / "manifest.json").read_text("utf-8"), folder)
    path = folder / f"file{IN_FILE_NAME}.gguf".replace("\udc9b", "")  # a manifest holds text
    (folder / found.files[0].path.rpartition("/")[2]).rename(path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    record = replace(found.files[0], path=path.relative_to(stage.store.home).as_posix())
    manifest.write(replace(found, files=(record,)), folder)
    return ["verify", name]


@case("export", "to")
def plant_export(stage: Stage) -> Words:
    (stage.folder / f"to{IN_FILE_NAME}").mkdir()
    return ["export", write_file(stage), stage.folder / f"to{IN_FILE_NAME}"]


@case("rm", "ref")
def plant_rm(stage: Stage) -> Words:
    return ["rm", planted("ref")]


@case("du")
def plant_du(stage: Stage) -> Words:
    folder = stage.store.home / "models" / "url" / f"begun{IN_FILE_NAME}" / "x"
    folder.mkdir(parents=True)
    (folder / f"begun{IN_FILE_NAME}.gguf.incomplete").write_bytes(b"GGUF" * 100)
    return ["du"]


@case("prune", "begun")
def plant_prune(stage: Stage) -> Words:
    plant_du(stage)
    return ["prune", "--dry-run"]


@case("update", "ref")
def plant_update(stage: Stage) -> Words:
    return ["update", planted("ref")]


@case("fit", "file")
def plant_fit(stage: Stage) -> Words:
    return ["fit", write_file(stage)]


@case("alias", "target")
def plant_alias(stage: Stage) -> Words:
    path = stage.store.aliases.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mine": planted("target")}))
    return ["alias"]


@case("store", "models")
def plant_store(stage: Stage) -> Words:
    stage.monkeypatch.setenv("OWM_HOME", str(stage.folder / f"models{IN_FILE_NAME}"))
    return ["store"]


@case("import", "file")
def plant_import(stage: Stage) -> Words:
    return ["import", "--from", write_file(stage).parent, "--dry-run"]


@case("convert --dry-run", "class")
def plant_class(stage: Stage) -> Words:
    write_tiny_checkpoint(stage.folder / "c", config={"architectures": [planted("class")]})
    return ["convert", "c", "--dry-run"]


@case("convert, a tensor", "tensor")
def plant_tensor(stage: Stage) -> Words:
    write_tiny_checkpoint(stage.folder / "c", tensors={planted("tensor"): np.zeros((4, 4), np.float32)})
    return ["convert", "c", "--dry-run"]


@case("quantize --dry-run", "out")
def plant_quantize(stage: Stage) -> Words:
    output = stage.folder / f"out{IN_FILE_NAME}.gguf"
    return ["quantize", write_file(stage), "Q8_0", "--dry-run", "-o", output]


@case("quantize, an architecture", "arch")
def plant_architecture(stage: Stage) -> Words:
    (stage.folder / "m.gguf").write_bytes(encode_header({"general.architecture": planted("arch")}, []))
    return ["quantize", "./m.gguf", "Q8_0", "--dry-run"]


@case("split", "file")
def plant_split(stage: Stage) -> Words:
    return ["split", write_file(stage), "--max-size", "100K", "--dry-run"]


@case("merge", "file")
def plant_merge(stage: Stage) -> Words:
    return ["merge", write_file(stage)]


@case("imatrix", "tensor", "text")
def plant_imatrix(stage: Stage) -> Words:
    name = f"tensor{SHORT}"
    sums = [TensorHeader(f"{name}.in_sum2", (4, 1), "F32", 0), TensorHeader(f"{name}.counts", (1, 1), "F32", 32)]
    keys = {"general.type": "imatrix", "imatrix.datasets": [planted("text")], "imatrix.chunk_count": 1}
    values = np.ones(4, np.float32).tobytes() + bytes(16) + np.ones(1, np.float32).tobytes() + bytes(28)
    (stage.folder / "m.gguf").write_bytes(encode_header(keys, sums) + values)
    return ["imatrix", "./m.gguf"]


@case("quality", "file")
def plant_quality(stage: Stage) -> Words:
    path = stage.folder / f"file{IN_FILE_NAME}.gguf"
    path.write_bytes(b"GGUF")
    return ["quality", path, path]
