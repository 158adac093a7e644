"""Targets of fuzzing: small files of settings, values and results, inputs of batches, shapes of answers, snapshots."""

import json
import random
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lib.fuzz_case import Wrong, tell
from lib.fuzz_records import COMMIT, SHA256, FileTarget, as_text
from lib.mutation import mutate_bytes, mutate_json_file, mutate_lines


class Settings(FileTarget):
    """config.toml: read, and changed by `owm config`."""

    name = "config"
    change = staticmethod(as_text)

    @cached_property
    def seeds(self) -> list[bytes]:
        return [
            b'temp = 0.5\ntop-k = 40\nsystem = "Be brief."\n\n[models."o/r:Q8_0"]\nctx_size = 4096\nthreads = 4\n',
            b"# mine\nseed = 1 # one\nflash_attn = 'on'\n[models]\n[models.x]\ntemp = 1e-3\n",
            b'models = {x = {temp = 1}, "y" = {}}\n',
        ]

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.settings import config

        path = folder / "config.toml"
        path.write_bytes(case)
        found = tell(config.load, path)
        if found is not None:
            found.layers(["o/r:Q8_0", "x"])
        config.change(path, None, {"temp": 0.7}, remove=["seed"])
        config.change(path, "x", {"threads": 2})
        if found is not None and config.load(path).everywhere.get("temp") != 0.7:
            raise Wrong("a setting that is not there when it was set")


class Kept(FileTarget):
    """Aliases, tuned values, results of benchmarks, sampling advice, recipes, Docker's credentials, locks, prompts."""

    name = "small files"

    @cached_property
    def files(self) -> dict[str, bytes]:
        from owm.formats.sealed_lines import seal

        tuned = {
            "model": "m",
            "machine": "x",
            "build": "b",
            "name": "n",
            "machine_name": "y",
            "values": {"threads": 4, "flash_attn": "on"},
            "gain": {"prompt": 1.5},
            "tuned_at": "2025-01-01",
        }
        result = {
            "model_filename": "m.gguf",
            "model_size": 1,
            "model_n_params": 2,
            "n_prompt": 512,
            "n_gen": 0,
            "test_time": "2025-01-01T00:00:00Z",
            "samples_ts": [1.5, 2.5],
            "samples_ns": [1, 2],
            "version": 1,
            "avg_ts": 2.0,
            "run_id": "r",
            "machine": {"fingerprint": "f"},
            "flash_attn": True,
        }
        recipe = {
            "format": "owm.recipe",
            "version": 1,
            "types": {"blk.0.attn_q.weight": "Q4_K"},
            "target_bytes": 5,
            "n_bytes": 4,
            "predicted_kld": 0.1,
        }
        lock = (
            'version = 1\n\n[[model]]\nname = "o/r:Q8_0"\nsource = "o/r"\nquant = "Q8_0"\nlicence = "mit"\n'
            f'commit = "{COMMIT}"\n\n[[model.file]]\npath = "m-Q8_0.gguf"\nsize_bytes = 10\nsha256 = "{SHA256}"\n'
        )
        docker = {
            "auths": {"ghcr.io": {"auth": "dTpw"}, "127.0.0.1:5000": {"username": "u", "password": "p"}},
            "credHelpers": {"x": "y"},
            "credsStore": "z",
        }
        return {
            "aliases.json": json.dumps({"mine": "o/r:Q8_0", "x": "/a.gguf"}).encode(),
            "tuned.json": json.dumps({"version": 1, "tuned": [tuned]}).encode(),
            "history.jsonl": b"".join(seal(result | {"n_gen": n}) for n in (0, 8)),
            "generation_config.json": json.dumps(
                {"temperature": 0.5, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1}
            ).encode(),
            "recipe.json": json.dumps(recipe).encode(),
            "owm.lock": lock.encode(),
            "docker.json": json.dumps(docker).encode(),
            "prompt.txt": b"Say {input} of {x} and {{y}}.",
            "short.schema": b"name, age int: how old, tags list[int]",
        }

    @cached_property
    def seeds(self) -> list[bytes]:
        return [name.encode() + b"\0" + raw for name, raw in self.files.items()]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        name, raw = dice.choice(list(self.files.items()))
        ending = name.rpartition(".")[2]
        change = {"json": mutate_json_file, "jsonl": mutate_lines}.get(ending, as_text)
        return name.encode() + b"\0" + change(dice, raw, list(self.files.values()))

    def drive(self, case: bytes, folder: Path) -> None:
        name, _, raw = case.partition(b"\0")
        read = _READERS.get(name.decode("utf-8", "replace"))
        if read is None:
            return
        path = folder / name.decode()
        if path.name == "docker.json":
            path = folder / "docker_config" / "config.json"
        path.write_bytes(raw)
        read(path)


def _read_aliases(path: Path) -> None:
    from owm.store import refs
    from owm.store.aliases import Aliases

    aliases = Aliases(path)
    aliases.load()
    for name in ("mine", "x", "mine:7b", "mine:7b:Q4_0", "mine:Q8_0"):
        tell(lambda name=name: aliases.expand(refs.parse(name)))


def _read_tuned(path: Path) -> None:
    from owm.settings import tuned

    for each in tuned.load(path):
        each.layer(), each.said(), each.key
    tuned.find(tuned.load(path), "m", lambda: ("x", "b"))
    tell(tuned.save, path, tuned.Tuned("m", "x", "b", "n", "y", {"threads": 1}))


def _read_history(path: Path) -> None:
    from owm.bench import compare, history

    records = history.read(path)
    for run in history.runs(records):
        tell(compare.compare, run, records, records)
    for record in records:
        json.dumps(record.members())


def _read_advice(path: Path) -> None:
    from owm.settings import generation_config

    generation_config.read(path)


def _read_recipe(path: Path) -> None:
    from owm.tailor.recipe_file import read_recipe

    json.dumps(read_recipe(path).document())


def _read_lock(path: Path) -> None:
    from owm.library import locking

    lock = locking.read_lock(path)
    again = path.with_name("again.lock")
    locking.write_lock(lock, again)
    if locking.read_lock(again) != lock:
        raise Wrong("a lock that is another when it is read again")


def _read_docker(path: Path) -> None:
    from owm.store.sources.credentials import credentials_for

    for host in ("ghcr.io", "127.0.0.1:5000", "x"):
        _ = credentials_for(host).basic


def _read_prompt(path: Path) -> None:
    from owm.batch.pattern import Pattern
    from owm.settings import prompts

    text = path.read_bytes().decode("utf-8", "replace")
    tell(prompts.fill, text, {"input": "a", "x": "b"})
    tell(lambda: Pattern(text).fill({"input": 1, "x": [2]}))


def _read_short(path: Path) -> None:
    from owm.engine.schema import fields

    fields(path.read_bytes().decode("utf-8", "replace"))


_READERS: dict[str, Callable[[Path], None]] = {
    "aliases.json": _read_aliases,
    "tuned.json": _read_tuned,
    "history.jsonl": _read_history,
    "generation_config.json": _read_advice,
    "recipe.json": _read_recipe,
    "owm.lock": _read_lock,
    "docker.json": _read_docker,
    "prompt.txt": _read_prompt,
    "short.schema": _read_short,
}


class Rows(FileTarget):
    """Inputs of batches in every form."""

    name = "rows"

    @cached_property
    def files(self) -> dict[str, bytes]:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 1,
            "max_tokens": 5,
            "logprobs": True,
            "top_logprobs": 2,
            "seed": 1 << 40,
            "stop": ["x"],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
            },
            "reasoning_effort": "low",
        }
        rows = [
            {"id": 1, "prompt": "a", "system": "b", "temp": 0.5, "max_tokens": 9, "extra": [1, {"x": None}]},
            {
                "id": "x",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}],
                "choice": ["yes", "no"],
            },
            {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body},
            {"custom_id": "r2", "method": "POST", "url": "/v1/completions", "body": {"prompt": ["x"], "logprobs": 3}},
            {"prompt": "d", "regex": "[a-z]+", "seed": 3},
        ]
        return {
            "jsonl": b"\n".join(json.dumps(row).encode() for row in rows) + b"\n",
            "csv": b'id,prompt,max_tokens,note\n1,"hello, you",5,x\n2,"two\nlines",,y\n',
            "tsv": b"id\tprompt\ttemp\n1\thello\t0.5\n",
            "lines": b"one\ntwo\n\xef\xbb\xbfthree\r\n",
        }

    @cached_property
    def seeds(self) -> list[bytes]:
        return [name.encode() + b"\0" + raw for name, raw in self.files.items()]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        name, raw = dice.choice([*self.files.items(), *[("jsonl", self.files["jsonl"])] * 3])
        if name == "jsonl":
            lines = raw.split(b"\n")
            for _ in range(dice.randrange(1, 3)):
                at = dice.randrange(len(lines))
                lines[at] = mutate_json_file(dice, lines[at], lines) if lines[at] else b"{}"
            return b"jsonl\0" + b"\n".join(lines)
        return (
            name.encode()
            + b"\0"
            + (mutate_bytes(dice, raw) if dice.random() < 0.3 else as_text(dice, raw, list(self.files.values())))
        )

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.batch.reading import read_rows
        from owm.engine.wishes import Wishes

        form, _, raw = case.partition(b"\0")
        path = folder / "rows"
        path.write_bytes(raw)
        failed = []
        for template in (None, "Say {prompt}: {id}"):
            form_name: Any = form.decode("utf-8", "replace")
            with read_rows(path, form=form_name, template=template) as rows:
                for row in rows:
                    if row.failure is None:
                        tell(row.over, Wishes())
                        json.dumps([row.messages("x"), dict(row.extra)])
                    else:
                        failed.append(row.failure.code)
            if form == b"lines":
                break
        if failed:
            from owm.batch.fields import Refused

            raise Refused(failed[0], failed[0])


class Shapes(FileTarget):
    """Grammars, regular expressions and JSON Schemas for answers."""

    name = "shapes"

    @cached_property
    def files(self) -> dict[str, list[str]]:
        items = {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "z"}]}
        schema = {
            "type": "object",
            "properties": {
                "a": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
                "b": {"$ref": "#/$defs/x"},
                "c": {"enum": [1, "x", None]},
            },
            "required": ["a"],
            "additionalProperties": False,
            "$defs": {"x": {"type": "array", "items": items, "minItems": 1}},
        }
        return {
            "gbnf": [
                'root ::= "a" word* ("," [0-9]{1,3})? # x\nword ::= [a-z\\u00e9^\\]]+ | "\\x41" | root\n',
                'root ::= ("yes" | "no") . [^\\n]{2,}\n',
            ],
            "lark": ['start: "a" WORD+\nWORD: /[a-z]+/\n'],
            "regex": ["[a-z]+@(x|y){2,3}\\.[^ ]?", "(\\d{4}-\\d\\d)*"],
            "schema": [
                json.dumps(schema),
                '{"type": "array", "prefixItems": [{"type": "number"}], "uniqueItems": false}',
            ],
        }

    @cached_property
    def seeds(self) -> list[bytes]:
        return [f"{name}\0{text}".encode() for name, texts in self.files.items() for text in texts]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        name = dice.choice(list(self.files))
        raw = dice.choice(self.files[name]).encode()
        texts = [text.encode() for texts in self.files.values() for text in texts]
        return name.encode() + b"\0" + (mutate_json_file if name == "schema" else as_text)(dice, raw, texts)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.engine.constrain import Constraint
        from owm.engine.schema import read_schema

        name, _, raw = case.partition(b"\0")
        text = raw.decode("utf-8", "surrogateescape")
        if name == b"schema":
            if text.strip().startswith("{"):
                Constraint.json_schema(read_schema(text))
        elif name == b"regex":
            Constraint.regex(text)
        else:
            Constraint.grammar(text)


class Snapshot(FileTarget):
    """Snapshots of contexts; of a header that was changed the digest is made anew."""

    name = "snapshots"

    @cached_property
    def seeds(self) -> list[bytes]:
        from owm.engine import snapshots

        return [snapshots._header(self.fingerprint.digest(), [1, 2, 3], bytearray(b"state"), "label") + b"state"]

    @cached_property
    def fingerprint(self) -> Any:
        from owm.engine.snapshots import Fingerprint

        return Fingerprint("m", "b")

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        from owm.engine import snapshots

        case = mutate_bytes(dice, dice.choice(kept))
        if dice.random() < 0.6 and len(case) > 132:
            n_label, n_tokens = case[10] + 256 * case[11], int.from_bytes(case[12:16], "little")
            end = 88 + n_label + 4 * n_tokens
            if end < len(case):
                case = case[:end] + snapshots._digest(case[:end]) + case[end + 32 :]
        return case

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.engine.snapshots import Snapshots

        home = folder / "snapshots"
        home.mkdir(exist_ok=True)
        path = home / f"{self.fingerprint.digest().hex()[:16]}-x.kv"
        path.write_bytes(case)
        kept = Snapshots(home)
        kept.all()
        if (found := kept.find(self.fingerprint, len)) is not None:
            kept.load(found)
