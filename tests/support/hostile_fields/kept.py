"""What is kept of earlier work: conversations, logs, prompts, settings, results, locks; and the machine."""

import json
from dataclasses import replace
from pathlib import Path

from owm.bench import history
from owm.bench.record import Record
from owm.chat.sessions import open_sessions
from owm.hardware import gpus, machine
from owm.logs import LogEntry, record
from owm.settings import config, tuned
from owm.settings.prompts import open_prompts
from support.hostile_fields import Stage, Words, case
from support.hostile_text import planted

RESULTS = Path(__file__).parents[2] / "unit" / "bench" / "llama_bench" / "with_md.json"


def toml(text: str) -> str:
    """Return a text as it stands between quotes in TOML."""
    return "".join(c if c.isascii() and c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def keep_a_session() -> str:
    """Keep a conversation that is hostile wherever it can be; return its id."""
    with open_sessions().create() as session:
        session.set_model(planted("model"), "0" * 64)
        session.set_system(planted("system"))
        session.add_turn("user", planted("asked"), attachments=[planted("attached")])
        session.add_turn(
            "assistant", planted("answered"), reasoning=planted("thought"), finish_reason=planted("finish")
        )
        session.set_title(planted("title"))
    return session.id


@case("sessions list", "title", "model")
def plant_sessions(stage: Stage) -> Words:
    keep_a_session()
    return ["sessions", "list"]


@case("sessions show", "title", "model", "system", "asked", "attached", "answered", "finish")
def plant_session(stage: Stage) -> Words:
    return ["sessions", "show", keep_a_session()]


@case("sessions show, as JSON")
def plant_session_json(stage: Stage) -> Words:
    return ["sessions", "show", keep_a_session(), "--json"]


@case("sessions search", "title")
def plant_search(stage: Stage) -> Words:
    keep_a_session()
    return ["sessions", "search", "FORGED"]


@case("sessions export")
def plant_export(stage: Stage) -> Words:
    return ["sessions", "export", keep_a_session()]


@case("sessions export, as JSON")
def plant_export_json(stage: Stage) -> Words:
    return ["sessions", "export", keep_a_session(), "--format", "json"]


@case("sessions rm", "session")
def plant_removed(stage: Stage) -> Words:
    return ["sessions", "rm", planted("session"), "--yes"]


@case("logs", "model", "asked", "answered", "finish")
def plant_log(stage: Stage) -> Words:
    entry = LogEntry(
        command="run", model=planted("model"), model_sha256=None, prompt=planted("asked"), answer=planted("answered"),
        settings={}, finish_reason=planted("finish"), n_prompt=1, n_generated=1, timings={},
    )  # fmt: skip
    assert record(entry, is_forced=True) is None
    return ["logs"]


@case("prompts list", "text")
def plant_prompts(stage: Stage) -> Words:
    open_prompts().save("mine", planted("text"))
    return ["prompts", "list"]


@case("prompts show", "text")
def plant_prompt(stage: Stage) -> Words:
    open_prompts().save("mine", planted("text"))
    return ["prompts", "show", "mine"]


@case("config", "model", "system")
def plant_config(stage: Stage) -> Words:
    path = config.default_path()
    path.parent.mkdir(parents=True)
    model, system = (toml(planted(name)) for name in ("model", "system"))
    path.write_text(f'[models."{model}"]\nsystem = "{system}"\n', "utf-8")
    return ["config"]


@case("config, a key", "key")
def plant_key(stage: Stage) -> Words:
    return ["config", "set", f"{planted('key')}=1"]


@case("tune list", "model", "machine")
def plant_tuned(stage: Stage) -> Words:
    one = tuned.Tuned(
        "a" * 64, "0" * 12, "build", planted("model"), planted("machine"), {"threads": 3}, {planted("gain"): 1.5},
        "2026-01-02",
    )  # fmt: skip
    tuned.save(tuned.default_path(), one)
    return ["tune", "list"]


def results(stage: Stage) -> list[Path]:
    """Write two files of hostile results."""
    one = replace(Record.of_members(json.loads(RESULTS.read_text())[0]), model=planted("model"), test=planted("test"))
    found = []
    for name in ("a.jsonl", "b.jsonl"):
        history.append([one, one], stage.folder / name)
        found.append(stage.folder / name)
    return found


@case("bench --compare", "model", "test")
def plant_results(stage: Stage) -> Words:
    return ["bench", "--compare", *results(stage)]


@case("doctor", "cpu", "gpu")
def plant_machine(stage: Stage) -> Words:
    stage.monkeypatch.setattr(machine, "_CPUINFO", stage.folder / "cpuinfo")
    stage.monkeypatch.setattr(gpus, "_NVIDIA", stage.folder / "gpus")
    cpu, gpu = (planted(name).replace("\r", "") for name in ("cpu", "gpu"))
    (stage.folder / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {cpu}\n", "utf-8")
    (stage.folder / "gpus" / "0").mkdir(parents=True)
    (stage.folder / "gpus" / "0" / "information").write_text(f"Model: \t\t {gpu}\n", "utf-8")
    return ["doctor"]


def lock_file(stage: Stage) -> Path:
    """Write a lock file with a hostile name and licence."""
    name, licence, commit = (toml(planted(field)) for field in ("locked", "licence", "commit"))
    path = stage.folder / "owm.lock"
    path.write_text(
        f'version = 1\n[[model]]\nname = "{name}"\nsource = "acme/m"\nquant = "Q8_0"\ncommit = "{commit}"\n'
        f'licence = "{licence}"\n[[model.file]]\npath = "m.gguf"\nsize_bytes = 1\nsha256 = "{"0" * 64}"\n',
        "utf-8",
    )
    return path


@case("lock --check")
def plant_lock(stage: Stage) -> Words:
    return ["lock", "--check", "--lock", lock_file(stage)]


@case("sync --check")
def plant_sync(stage: Stage) -> Words:
    return ["sync", "--check", "--lock", lock_file(stage)]


@case("lock, of what is not stored", "missing")
def plant_missing(stage: Stage) -> Words:
    return ["lock", planted("missing")]
