"""Every command there is, each at least once on tiny models, for what has to hold of all of them."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import typer

from owm.cli.app import COMMANDS
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.stored import put_model
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

TEXT = "the rain in Spain, and then another one: there is no end to it. " * 20
TOKEN = "hf_" + "t" * 30
FEW = ("--max-tokens", "3", "--temp", "0")


@dataclass(frozen=True, slots=True)
class Step:
    """One command line.

    Attributes:
        code: that it has to end with.
        is_networked: it asks a server.
        fails_at: raise an interruption (130) or a full disk at the so many-th file that is opened to be written.
    """

    args: tuple[str, ...]
    stdin: str = ""
    code: int = 0
    is_networked: bool = False
    fails_at: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of a run: what is named as input and output, and what nobody has named."""

    inputs: Path
    out: Path
    home: Path
    cwd: Path
    temporary: Path


def places(top: Path) -> Places:
    """Make the folders, with something in each that must not change."""
    made = Places(*(top / name for name in ("inputs", "out", "home", "cwd", "temporary")))
    for folder in (made.inputs, made.out, made.home, made.cwd, made.temporary):
        folder.mkdir()
    for folder in (made.home, made.cwd):
        (folder / ".profile").write_text("mine")
        (folder / "model.gguf").write_bytes(b"mine")
    return made


def prepare(places: Places, store: Store) -> None:
    """Put models where the steps look for them."""
    write_tiny_gguf(places.inputs / "tiny.gguf")
    write_tiny_checkpoint(places.inputs / "checkpoint")
    (places.inputs / "folder").mkdir()
    write_tiny_gguf(places.inputs / "folder" / "third.gguf", seed=3)
    (places.inputs / "broken.gguf").write_bytes(b"GGUF" + bytes(20))
    (places.inputs / "text.txt").write_text(TEXT)
    rows = "".join(json.dumps({"prompt": word}) + "\n" for word in ("one", "two"))
    (places.inputs / "rows.jsonl").write_text(rows)
    put_model(store, "me/tiny", "Q8_0", content=tiny_gguf(), revision=None, commit="b" * 40)
    put_model(store, "me/other", "Q8_0", content=tiny_gguf(seed=1), revision=None, commit="b" * 40)


def publish(hub: HubServer) -> None:
    """Publish what the networked steps ask for."""
    hub.add(Repo("you/remote", {"remote-Q8_0.gguf": tiny_gguf(seed=2), "generation_config.json": b"{}"}))
    hub.accounts[TOKEN] = "ada"


def leaves() -> Iterator[str]:
    """Yield the names of all commands, as the program itself has them."""
    for name, command in COMMANDS.items():
        yield name
        module = import_module(f"owm.cli.{command.module}")
        subcommands = getattr(module, "subcommands", None)
        if isinstance(subcommands, typer.Typer):
            yield from (f"{name} {each.name}" for each in subcommands.registered_commands if each.name)


def steps(places: Places) -> list[Step]:
    """Return command lines in an order in which each finds what it needs."""
    i, out = places.inputs, places.out
    tiny, stored, checkpoint, text = str(i / "tiny.gguf"), "me/tiny:Q8_0", str(i / "checkpoint"), str(i / "text.txt")
    rows, quantized = str(i / "rows.jsonl"), str(out / "q8.gguf")
    return [
        Step(("logs", "on")),
        Step(("run", stored, "hello", *FEW)),
        Step(("run", tiny, *FEW), stdin="from a pipe"),
        Step(("logs", "off")),
        Step(("logs",)),
        Step(("logs", "path")),
        Step(("chat", stored, "--max-tokens", "3"), stdin="Hi\nand again\n"),
        Step(("chat", stored, "--max-tokens", "3", "--private"), stdin="Hi\n"),
        Step(("sessions",)),
        Step(("sessions", "list")),
        Step(("sessions", "show", "Hi")),
        Step(("sessions", "search", "Hi")),
        Step(("sessions", "export", "Hi", "-o", str(out / "talk.md"))),
        Step(("batch", "-m", stored, rows, "-o", str(out / "answers.jsonl"), *FEW)),
        Step(("batch", "-m", stored, rows, "--errors", str(out / "errors.jsonl"), *FEW)),
        Step(("embed", stored, "hello", "--pooling", "mean", "-o", str(out / "vectors.npy"))),
        Step(("bench", stored, "-p", "8", "-n", "4", "-r", "1")),
        Step(("tune",)),
        Step(("tune", "list")),
        Step(("tune", "rm", "--all")),
        Step(("convert", checkpoint, "-o", str(out / "converted.gguf"))),
        Step(("quantize", checkpoint, "Q8_0", "-o", quantized)),
        Step(("quantize", str(out / "converted.gguf"), "Q8_0", "--imatrix", "auto")),
        Step(("split", quantized, "--max-tensors", "8", "-o", str(out / "parts.gguf"))),
        Step(("merge", str(out / "parts-00001-of-00003.gguf"), "-o", str(out / "merged.gguf"))),
        Step(("imatrix", tiny, "--calibration", text, "-c", "64", "-o", str(out / "imatrix.gguf"))),
        Step(("quality", str(out / "converted.gguf"), quantized, "--text", text, "-c", "32")),
        Step(("fit", stored)),
        Step(("list",)),
        Step(("ls", "--all")),
        Step(("show", stored, "--template")),
        Step(("path", stored)),
        Step(("verify", "--full")),
        Step(("import", "--from", tiny)),
        Step(("import", "--from", str(i / "folder"), "--link", "copy")),
        Step(("alias", "mine", stored)),
        Step(("config", "set", "temp=0.5")),
        Step(("config",)),
        Step(("config", "list")),
        Step(("config", "get", "temp")),
        Step(("config", "path")),
        Step(("config", "unset", "temp")),
        Step(("prompts", "save", "brief"), stdin="Be brief about {input}."),
        Step(("prompts",)),
        Step(("prompts", "list")),
        Step(("prompts", "show", "brief")),
        Step(("prompts", "path")),
        Step(("prompts", "rm", "brief")),
        Step(("export", stored, str(out / "exported.gguf"), "--with-manifest")),
        Step(("du",)),
        Step(("cache",)),
        Step(("cache", "list")),
        Step(("cache", "clear")),
        Step(("doctor",)),
        Step(("store",)),
        Step(("store", "move", str(out))),
        Step(("login",), stdin=TOKEN, is_networked=True),
        Step(("pull", "you/remote"), is_networked=True),
        Step(("lock", "you/remote", "--lock", str(out / "owm.lock")), is_networked=True),
        Step(("sync", "--lock", str(out / "owm.lock")), is_networked=True),
        Step(("search", "remote"), is_networked=True),
        Step(("show", "you/remote"), is_networked=True),
        Step(("update", "you/remote"), is_networked=True),
        Step(("verify", "--full", "--repair"), is_networked=True),
        Step(("logout",)),
        Step(("prune", "--yes")),
        Step(("logs", "clear", "--yes")),
        Step(("sessions", "rm", "Hi", "--yes")),
        # what ends in an error, and where
        Step(("run", str(i / "broken.gguf"), "hello"), code=7),
        Step(("run", "me/nothing", "hello", "--offline"), code=4),
        Step(("quantize", str(i / "broken.gguf"), "Q4_0", "-o", str(out / "never.gguf")), code=7),
        Step(("batch", "-m", stored, str(i / "absent"), "-o", str(out / "never.jsonl")), code=3),
        Step(("import", "--from", str(i / "broken.gguf")), code=7),
        Step(("nonsense",), code=2),
        *(
            Step((*args, str(out / f"cut-{fails_at}{ending}"), *more), fails_at=fails_at, code=130)
            for fails_at, n_commands in ((1, 5), (3, 3))
            for args, ending, more in (
                (("convert", checkpoint, "-o"), ".gguf", ()),
                (("quantize", checkpoint, "Q4_0", "-o"), ".gguf", ()),
                (("batch", "-m", stored, rows, "-o"), ".jsonl", FEW),
                (("embed", stored, "hello", "--pooling", "mean", "-o"), ".npy", ()),
                (("export", stored), ".gguf", ()),
            )[:n_commands]
        ),
        Step(("rm", stored, "--yes")),
    ]


def as_json(found: list[Step]) -> list[dict[str, object]]:
    """Return steps as the process takes them that runs them."""
    return [asdict(step) for step in found]
