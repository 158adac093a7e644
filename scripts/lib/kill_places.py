"""What commands need before they are killed: servers on this machine, and tiny models, texts and stores."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from owm.engine.snapshots import Fingerprint, Snapshots
from owm.hardware.machine import this_machine
from owm.library.configuring import identity_of
from owm.settings import tuned
from owm.settings.tuned import Tuned
from owm.store import refs
from owm.store.model import at_path
from support.hub_server import HubServer, Repo
from support.line_server import LineServer
from support.modelscope_server import ModelScopeServer
from support.registry_server import OLLAMA, Blob, RegistryServer, json_blob, manifest_of, ollama_model
from support.scripted_gguf import write_scripted_gguf
from support.tiny_bert import write_tiny_bert
from support.tiny_checkpoint import files_of, write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf
from support.wheels import write_wheel

TOKEN = "hf_aVeryGoodTokenOfAda"
TEXT = "".join(f"{number} the tin man and a cat sat there\n" for number in range(60))
GREEDY = ("--temp", "0", "-t", "1")
LINKS = ("hard", "sym", "copy")


class Place(Protocol):
    """Where a command runs: the folder of the user, and commands that prepare it."""

    here: Path

    def owm(self, *words: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> None:
        """Run a command that must succeed."""


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Serve what is pulled; give the environment that names the servers."""
    model, other = tiny_gguf(seed=1), tiny_gguf(seed=2)
    new, old = "b2c3d4e5" * 5, "a1b2c3d4" * 5
    checkpoint = files_of()
    blobs = Blob(f"{OLLAMA}.system", b"Be brief."), Blob(f"{OLLAMA}.license", b"MIT License")
    with ExitStack() as stack:
        common = [
            Repo("me/tiny", {"tiny-Q8_0.gguf": model, "README.md": b"one", "generation_config.json": b'{"top_k": 7}'}),
            Repo("me/checkpoint", checkpoint),
        ]
        hub = stack.enter_context(HubServer(*common, Repo("me/moving", {"m-Q8_0.gguf": other}, commit=new)))
        before = stack.enter_context(HubServer(*common, Repo("me/moving", {"m-Q8_0.gguf": model}, commit=old)))
        for each in (hub, before):
            each.accounts[TOKEN] = "ada"
            each.fail("/lfs/", server="cdn", times=None, trickle_seconds=0.003)
        line = stack.enter_context(LineServer({"m-Q8_0.gguf": model}, bytes_per_second=8e6))
        scope = stack.enter_context(ModelScopeServer({"me/tiny": {"tiny-Q8_0.gguf": model, "config.json": b"{}"}}))
        registry = stack.enter_context(RegistryServer())
        registry.put("library/tiny", "8b", *ollama_model(model, *blobs))
        layer = Blob("application/vnd.docker.ai.gguf.v3", model)
        config = json_blob("application/vnd.docker.ai.model.config.v0.1+json", {"config": {"format": "gguf"}})
        registry.put("ai/tiny", "v1", manifest_of([layer], config), [layer, config])
        write_wheel(folder / "index", "tiny-model", "1.0", {"tiny_model/tiny-Q8_0.gguf": model})
        yield {
            "HF_ENDPOINT": hub.endpoint,
            "PROOF_HUB_BEFORE": before.endpoint,
            "OWM_OLLAMA_REGISTRY": registry.base,
            "MODELSCOPE_DOMAIN": scope.base,
            "PROOF_OCI": f"oci://{registry.host}/ai/tiny:v1",
            "PROOF_URL": f"{line.address}/m-Q8_0.gguf",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(folder / "index"),
        }


def model(place: Place) -> None:
    """Make a model file."""
    write_tiny_gguf(place.here / "m.gguf")


def text(place: Place) -> None:
    """Make two model files, a text, and a folder for parts."""
    model(place)
    write_tiny_gguf(place.here / "other.gguf", seed=5)
    (place.here / "text.txt").write_text(TEXT, "utf-8")
    (place.here / "parts").mkdir()


def checkpoint(place: Place) -> None:
    """Make a checkpoint and a text."""
    write_tiny_checkpoint(place.here / "tiny")
    (place.here / "text.txt").write_text(TEXT, "utf-8")


def matrix(place: Place) -> None:
    """Make a model and its importance matrix."""
    text(place)
    place.owm("imatrix", "m.gguf", "--calibration", "text.txt", "-c", "64", "-o", "made.gguf", "-t", "1")


def pulled(place: Place) -> None:
    """Pull a model into the Hub cache."""
    place.owm("pull", "me/tiny:Q8_0")


def stored(place: Place) -> None:
    """Pull a model into owm's own tree."""
    place.owm("pull", os.environ["PROOF_URL"])


def both(place: Place) -> None:
    """Pull a model into each of the two."""
    pulled(place)
    stored(place)


def parts(place: Place) -> None:
    """Make the parts of a model file."""
    text(place)
    place.owm("split", "m.gguf", "--max-size", "100KB", "-o", "parts")


def scripted(place: Place) -> None:
    """Make a model that says the same always."""
    write_scripted_gguf(place.here / "m.gguf", "**Hello** there.", n_ctx_train=2048)
    place.owm("run", "m.gguf", "one", *GREEDY)  # what is found out of a file once is kept


def talked(place: Place) -> None:
    """Have a conversation."""
    scripted(place)
    place.owm("chat", "m.gguf", *GREEDY, stdin=b"one\ntwo\n")


def snapshots(place: Place) -> None:
    """Have snapshots of conversations."""
    kept = Snapshots(place.here.parent / "owm" / "cache" / "snapshots")
    for number in range(3):
        kept.save(Fingerprint("model", "build"), range(number, number + 100), bytearray(1000))


def titled(place: Place) -> None:
    """Have a conversation with a title."""
    scripted(place)
    place.owm("chat", "m.gguf", *GREEDY, stdin=b"one\n/title walrus\n")


def rows(place: Place) -> None:
    """Make a model and the rows of a batch."""
    model(place)
    rows = [{"id": number, "prompt": f"the tin {number}", "max_tokens": 8} for number in range(24)]
    (place.here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def logged(place: Place) -> None:
    """Have an answer in the log."""
    scripted(place)
    place.owm("run", "m.gguf", "one", "--log", *GREEDY)


def tuned_model(place: Place) -> None:
    """Make a model with tuned values."""
    model(place)
    machine = this_machine()
    stored = at_path(refs.parse(str(place.here / "m.gguf")))
    values = {"threads": 1, "ubatch_size": 8}
    kept = Tuned(
        model=identity_of(stored),
        name="m.gguf",
        machine=machine.fingerprint,
        machine_name="here",
        build=machine.build,
        values=values,
    )
    tuned.save(place.here.parent / "owm" / "tuned.json", kept)


def measured(place: Place) -> None:
    """Make a model, on a machine whose speed is known."""
    model(place)
    kept, machine = place.here.parent.parent / "machine.json", place.here.parent / "owm" / "cache" / "machine.json"
    if kept.exists():
        machine.parent.mkdir()
        shutil.copy(kept, machine)
    else:
        place.owm("fit", "./m.gguf", "--json")
        shutil.copy(machine, kept)


def damaged(place: Place) -> None:
    """Pull two models and turn over a bit in each."""
    both(place)
    for file in [*place.here.parent.rglob("models/**/*.gguf"), *place.here.parent.rglob("hub/**/blobs/*")]:
        if file.stat().st_size > 100_000:
            content = bytearray(file.read_bytes())
            content[-1000] ^= 1
            file.chmod(0o644)
            file.write_bytes(content)


def stale(place: Place) -> None:
    """Pull a model that is changed at its source afterwards."""
    place.owm("pull", "me/moving:Q8_0", environment={"HF_ENDPOINT": os.environ["PROOF_HUB_BEFORE"]})


def litter(place: Place) -> None:
    """Leave what `owm prune` removes."""
    pulled(place)
    home = place.here.parent / "owm"
    for name in ("models/url/x/m.gguf.incomplete", "models/url/y/z.gguf", "work/a.gguf", "cache/headers/" + "a" * 64):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"GGUF" * 1000)


def tools(place: Place) -> None:
    """Have a folder with models of another tool."""
    (place.here / "models").mkdir()
    for seed in (3, 4):
        (place.here / "models" / f"tiny{seed}-Q8_0.gguf").write_bytes(tiny_gguf(seed=seed))


def bert(place: Place) -> None:
    """Make a model for embeddings, and texts."""
    write_tiny_bert(place.here / "bert.gguf")
    (place.here / "lines.txt").write_text("the cat\na hat\nthe end\n" * 8)


def named(place: Place) -> None:
    """Have an alias, settings and a prompt."""
    model(place)
    place.owm("alias", "mine", "./m.gguf")
    place.owm("config", "set", "temp=0.3", "top_k=20")
    place.owm("prompts", "save", "short", "--text", "Be brief.")


def locked(place: Place) -> None:
    """Have a lock file, and none of its models."""
    both(place)
    place.owm("lock", "me/tiny:Q8_0", "$PROOF_URL")
    for name in ("me/tiny:Q8_0", "$PROOF_URL"):
        place.owm("rm", name, "--yes")


def made(place: Place) -> None:
    """Quantize a model into the store."""
    model(place)
    place.owm("quantize", "m.gguf", "Q4_K_M", "-t", "1")


def logged_in(place: Place) -> None:
    """Be logged in."""
    place.owm("login", stdin=f"{TOKEN}\n".encode())
