"""Targets of fuzzing: what owm has written itself and reads again, and what people give it as files."""

import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from lib.fuzz_case import Target, Wrong, tell
from lib.inside import ROOT
from lib.mutation import mutate_bytes, mutate_json_file, mutate_lines, mutate_text

sys.path.insert(0, str(ROOT / "tests"))

COMMIT, SHA256 = "a" * 40, "0" * 64


class FileTarget(Target):
    """One file of some form."""

    change: Callable[[random.Random, bytes, Sequence[bytes]], bytes] = staticmethod(mutate_json_file)

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        return type(self).change(dice, dice.choice(kept if dice.random() < 0.3 else self.seeds), self.seeds)


def as_text(dice: random.Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Change a file that is a text."""
    if dice.random() < 0.1:
        return mutate_bytes(dice, raw, others)
    texts = [other.decode("utf-8", "replace") for other in others]
    return mutate_text(dice, raw.decode("utf-8", "surrogateescape"), others=texts).encode(
        "utf-8", "surrogatepass" if dice.random() < 0.1 else "replace"
    )


class Manifest(FileTarget):
    """Manifests of stored models, and what `list`, `show` and `verify` make of them."""

    name = "manifests"

    @cached_property
    def seeds(self) -> list[bytes]:
        from dataclasses import replace

        from owm.store import manifest
        from owm.store.manifest import FileRecord, ModelFacts

        file = FileRecord("models/hub/o/r/main/Q8_0/m-Q8_0.gguf", "owm", 10, SHA256, "model", 7)
        facts = ModelFacts("llama", "Tiny", 1000, 512, "mit")
        one = manifest.Manifest(
            "o/r", "hub", "o/r", "Q8_0", "main", COMMIT, (file,), "mit", facts, "2025-01-01T00:00:00+00:00"
        )
        estimate = {"value": 0.1, "low": 0.05, "high": 0.2}
        certificate: dict[str, Any] = dict.fromkeys(
            ("kld_mean", "kld_median", "kld_p99", "perplexity_reference", "perplexity", "top1_agreement"), estimate
        )
        certificate |= {
            "reference": "r",
            "reference_sha256": SHA256,
            "text": "t",
            "text_sha256": SHA256,
            "by": "owm",
            "n_ctx": 512,
        }
        certificate |= {"n_chunks": 1, "n_chunks_total": 2, "n_tokens": 512}
        made = {
            "source": {"ref": "o/r", "sha256": SHA256, "commit": COMMIT},
            "recipe": {"type": "Q4_K_M"},
            "owm": "1",
            "inputs": [{"path": "x", "size_bytes": 3, "sha256": SHA256}],
        }
        two = replace(
            one,
            made_from=made,
            quality={"certificate": certificate, "blanked": {"offset": 99, "size_bytes": 1024}},
            ref="local:x",
            source="local",
        )
        shard = replace(file, path="/tmp/x-00002-of-00002.gguf", root="outside", role="shard", validator='"e"')
        three = replace(
            one,
            files=(file, shard),
            generation_config=file,
            extras=(replace(file, role="licence"),),
            owner="ollama",
            ref="ollama:x:1b",
            source="ollama",
        )
        return [manifest.dump(each).encode() for each in (one, two, three)]

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.cli.listing import record
        from owm.library import provenance
        from owm.store import manifest
        from owm.store.local import Store

        store = Store(folder / "owm_home", folder / "hf_home")
        place = store.home / "models" / "hub" / "o" / "r"
        place.mkdir(parents=True, exist_ok=True)
        (place / "manifest.json").write_bytes(case)
        found = store.at(place)
        if found is None or found.manifest is None:
            raise Wrong("a manifest that is not there")
        if manifest.parse(manifest.dump(found.manifest), place) != found.manifest:
            raise Wrong("a manifest that is another when it is read again")
        tell(json.dumps, record(found, store))
        tell(store.shown_name, found)
        tell(lambda: provenance.Lineages(store).of(found).record())
        tell(lambda: store.verify(found))
        _ = found.manifest.blanked, found.size_bytes, found.is_verified
        if found not in store.models([]):
            raise Wrong("a model that is not listed")


class Recipe(FileTarget):
    """How a model was made, in a manifest beside it or in a record of owm's own, as `--reproduce` reads that."""

    name = "recipes"

    @cached_property
    def model(self) -> bytes:
        from support.tiny_gguf import write_tiny_gguf

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "of.gguf")
            write_tiny_gguf(path)
            return path.read_bytes()

    @cached_property
    def seeds(self) -> list[bytes]:
        sha256 = hashlib.sha256(self.model).hexdigest()
        file = {"path": "of.gguf", "size_bytes": len(self.model), "sha256": sha256}
        shared = {
            "files": [file],
            "by": "owm 0.1.0",
            "versions": {"owm": "0.1.0", "llama_cpp": "llama-cpp-python 0.3.36"},
        }
        options = {"tensor_type": ["attn_v=Q8_0"], "pure": True, "split_max_size": 1 << 20, "pre": "default"}
        imatrix = {
            "file": "i.gguf",
            "path": "i.gguf",
            "size_bytes": 10,
            "sha256": SHA256,
            "calibration": {"name": "c.txt", "sha256": SHA256},
        }
        recipes: list[dict[str, Any]] = [
            {"path": "of.gguf", "type": "Q5_1", "action": "quantize", "options": options, **shared},
            {"model": "o/r:F16", "commit": COMMIT, "type": "Q4_0", "action": "quantize", "imatrix": imatrix, **shared},
            {"checkpoint": "o/r", "commit": COMMIT, "type": "BF16", "action": "convert", "options": {}, **shared},
            {
                "path": "of.gguf",
                "type": "6.99BPW",
                "tensor_types": {"output.weight": "Q5_0"},
                "action": "quantize",
                **shared,
            },
            {"by": "another 1.0", "action": "foreign", "files": [file]},
        ]
        known = {"format": "owm.made", "version": 1, "ref": "of", "name": "of", "label": "Q5_1", "commit": None}
        files = [{"name": "m.gguf", "size_bytes": len(self.model), "sha256": sha256}]
        return [json.dumps({**known, "files": files, "made_from": recipe}).encode() for recipe in recipes]

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.errors import ModelNotFound
        from owm.library import provenance, reproducing, retrieving
        from owm.store.local import Store

        sha256 = hashlib.sha256(self.model).hexdigest()

        def absent(what: object) -> Any:
            raise ModelNotFound(f"{what} is not fetched here", ref=str(what))

        def again(path: Path, store: Store) -> None:
            target = reproducing.find_target(str(path), store)
            source = retrieving.find_source(target, store, fetch=absent, pull=absent)
            retrieving.find_imatrix(target, source, store)

        for place in ("made", "beside"):
            store = Store(folder / place / "owm_home", folder / place / "hf_home")
            path = folder / place / "m.gguf"
            (store.home / "made").mkdir(parents=True, exist_ok=True)
            for model in (path, path.with_name("of.gguf")):
                model.write_bytes(self.model)
            record = path.with_name("m.manifest.json") if place == "beside" else store.home / "made" / f"{sha256}.json"
            record.write_bytes(case)
            found = provenance.find(str(path), store, provenance.Lineages(store))
            tell(json.dumps, provenance.Lineages(store).of(found).record())
            if place == "made":
                tell(again, path, store)
        again(path, store)  # what is refused last is the outcome


class RunManifest(FileTarget):
    """Manifests of batches."""

    name = "batch manifests"

    @cached_property
    def seeds(self) -> list[bytes]:
        from owm.batch.manifest import RunManifest, RunModel

        models = [RunModel("o/r:Q8_0", "/m.gguf", SHA256, 10, 7), RunModel("p", "/p.gguf", "1" * 64, 3, 4)]
        settings = {"temp": 0.5, "system": "Be brief.", "schema": {"type": "object"}, "max_tokens": None}
        made = []
        with tempfile.TemporaryDirectory() as folder:
            for n in (1, 2):
                path = Path(folder, "x.json")
                RunManifest.begin("rows.jsonl", models[:n], settings, seed=1, library_build="b").save(path)
                made.append(path.read_bytes())
        return made

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.batch.manifest import RunManifest, differences

        path = folder / "out.jsonl.manifest.json"
        path.write_bytes(self.seeds[0])
        usual = RunManifest.load(path)
        path.write_bytes(case)
        found = RunManifest.load(path)
        if found is None or usual is None:
            raise Wrong("a manifest that is not there")
        differences(found, usual), differences(usual, found)
        found.save(path)
        if (again := RunManifest.load(path)) != found and "NaN" not in repr(again).replace("nan", "NaN"):
            raise Wrong("a manifest that is another when it is read again")


class Journal(FileTarget):
    """Journals of batches: read, gone on with, and made an output of."""

    name = "journals"
    change = staticmethod(mutate_lines)

    @cached_property
    def seeds(self) -> list[bytes]:
        from dataclasses import replace

        from owm.batch import record_line
        from support.journals import FAILED, record

        lines = [
            record_line.HEADER,
            *(record_line.record_line(record(n)) for n in range(1, 4)),
            record_line.record_line(FAILED),
        ]
        answer = {
            "text": "x",
            "reasoning": "y",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            "seed": 4,
            "is_cut": True,
        }
        answer["logprobs"] = [
            {
                "token": "x",
                "bytes": [120],
                "logprob": -0.5,
                "top_logprobs": [{"token": "x", "bytes": [120], "logprob": -0.5}],
            }
        ]
        chat = [replace(record(n), form=form, answer=answer) for n, form in ((5, "chat"), (6, "completion"))]
        return [
            b"".join(lines),
            b"".join(
                [*lines, *map(record_line.record_line, chat), record_line.mark_line({"form": "jsonl", "rows": 5})]
            ),
        ]

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.batch.journal import Journal
        from owm.batch.ledger import Ledger
        from owm.batch.writing import write_rows

        path = folder / "out.jsonl.journal"
        path.write_bytes(case)
        with Journal.open(path) as journal:
            records = list(journal.scan())
            for offset, record in records:
                if tell(journal.read, offset) != record and record == record:
                    raise Wrong("a record that is another when it is read again")
            ledger = Ledger(journal, ["m"])
            ledger.n_done("m")
            ledger.keys += dict.fromkeys(record.key for _, record in records)
            ledger.n_failed(), ledger.n_cut(), ledger.fingerprint()
            rows = list(ledger.rows(as_done=False))
            for form in ("jsonl", "openai", "csv", "lines"):
                tell(write_rows, rows, StringIO(), form, errors=StringIO())
                tell(write_rows, rows, StringIO(), form, fields=["n"], models=["m", "n"])


class Session(FileTarget):
    """Chat sessions: listed, searched, opened, exported, gone on with."""

    name = "sessions"
    change = staticmethod(mutate_lines)

    @cached_property
    def seeds(self) -> list[bytes]:
        from owm.chat.session import Session as Conversation

        made = []
        with tempfile.TemporaryDirectory() as folder:
            for n in (1, 3):
                session = Conversation.create(Path(folder))
                for i in range(n):
                    session.add_turn("user", f"question {i} é", typed="question", attachments=["a.txt"])
                    session.add_turn(
                        "assistant",
                        "answer",
                        reasoning="thought",
                        finish_reason="stop",
                        usage={"total_tokens": 3},
                        seconds=0.5,
                        tokens=[1, 2],
                    )
                if n == 3:
                    session.undo()
                    session.add_turn("user", "another")
                    session.add_turn("assistant", "b")
                assert session.file is not None
                made.append(session.file.read_bytes())
                session.close()
        return made

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.chat import export
        from owm.chat.session import Session as Conversation
        from owm.chat.sessions import Sessions

        home = folder / "sessions"
        home.mkdir(exist_ok=True)
        path = home / "0123abcd.jsonl"
        path.write_bytes(case)
        listed = Sessions(home)
        n_listed = len(listed.summaries())
        listed.search("question")
        session = Conversation.read(path)
        for branch in session.branches():
            session.path(branch.turn)
        _ = session.title, session.damage, [turn.words for turn in session.path()]
        json.dumps(export.as_json(session))
        export.as_markdown(session).encode("utf-8", "replace"), export.as_html(session).encode("utf-8", "replace")
        n_turns = len(session.turns)
        if n_listed != bool(n_turns or session.damage):
            raise Wrong("a session that is not listed")
        with Conversation.open(path) as opened:
            if len(opened.turns) != n_turns:
                raise Wrong("a session that is another when it is opened")
            opened.add_turn("user", "and now?")
        if len(Conversation.read(path).turns) != n_turns + 1:
            raise Wrong("a turn that was said and is not there")


class Note(FileTarget):
    """Notes beside partial downloads."""

    name = "notes"

    @cached_property
    def seeds(self) -> list[bytes]:
        noted = {
            "validator": '"e"',
            "size_bytes": 100,
            "digest": "sha256:" + SHA256,
            "parts": [[0, 10], [20, 30]],
            "safe_parts": [[0, 10]],
            "boot": "x",
        }
        return [json.dumps(noted).encode(), json.dumps({"validator": None}).encode()]

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.store.transfers import note

        partial = folder / "m.gguf.incomplete"
        note.path_of(partial).write_bytes(case)
        if (found := note.read(partial)) is not None:
            found.parts_on_disk()
            note.write(found, partial)
            again = note.read(partial)
            if again is None or (again.parts, again.validator, again.size_bytes) != (
                found.parts,
                found.validator,
                found.size_bytes,
            ):
                raise Wrong("a note that is another when it is read again")
