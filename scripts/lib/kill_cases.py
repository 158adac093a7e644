"""The commands that write, each with what it needs on the disk; a new one without a case is told of."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from lib import kill_places as places
from lib.kill_places import Place

from owm.cli.app import COMMANDS

READS = {  # these change nothing
    "list", "ls", "path", "du", "search", "store", "config get", "config list", "config path", "sessions list",
    "sessions show", "sessions search", "prompts list", "prompts show", "prompts path", "tune list", "logs path",
    "cache list",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A command that writes.

    Attributes:
        line: the command, as in a shell; `$NAME` is of the environment.
        prepare: makes what it needs.
        says: what it prints on stdout is the same on each run.
        share: of the kills, against that of the others; slow ones have less.
        also: a command that must succeed after each kill, besides `owm verify`.
        verify: exit codes of `owm verify` that are right after a kill; `rm` may leave a model that is gone.
        between: fits names of files that have other contents on the way, each of which is whole.
    """

    name: str
    line: str
    prepare: Callable[[Place], None] = lambda place: None
    stdin: bytes = b""
    says: bool = True
    share: float = 1.0
    also: str | None = None
    verify: tuple[int, ...] = (0,)
    between: str | None = None

    @property
    def words(self) -> list[str]:
        """The command's words."""
        return shlex.split(self.line)

    @property
    def command(self) -> str:
        """The command of the app that it is a case of."""
        first, second = [*self.words, ""][:2]
        return f"{first} {second}" if f"{first} {second}" in writing_commands() else first


def writing_commands() -> set[str]:
    """Return the app's commands, with those below them, that are not known to write nothing."""
    found = set()
    for name, command in COMMANDS.items():
        module = import_module(f"owm.cli.{command.module}")
        if (group := getattr(module, "subcommands", None)) is None:
            found.add(name)
        else:
            found |= {f"{name} {each.name or each.callback.__name__}" for each in group.registered_commands}
    return found - READS


def missing() -> list[str]:
    """Return the commands that write and have no case."""
    return sorted(writing_commands() - {case.command for case in cases()})


def cases() -> list[Case]:
    """Return all cases."""
    return [*_bringing(), *_making(), *_answering(), *_keeping(), *_measuring()]


def _bringing() -> list[Case]:
    """Return the commands that bring models here."""
    importing = "import --from models"
    return [
        Case("pull hub", "pull me/tiny:Q8_0"),
        Case("pull checkpoint", "pull me/checkpoint"),
        Case("pull wheel", "pull pypi:tiny-model==1.0", share=0.5),
        Case("pull ollama", "pull ollama:tiny:8b"),
        Case("pull oci", "pull $PROOF_OCI"),
        Case("pull modelscope", "pull modelscope:me/tiny"),
        Case("pull web", "pull $PROOF_URL"),
        Case("import in place", importing, places.tools, says=False),
        *(Case(f"import {how}", f"{importing} --link {how}", places.tools, says=False) for how in places.LINKS),
        Case("sync", "sync", places.locked, says=False),
        Case("update", "update me/moving --yes", places.stale, says=False, verify=(0, 3)),
        Case("show", "show me/tiny --json", says=False),
        Case("fit", "fit me/tiny --json", places.measured, says=False, share=0.3),
    ]


def _making() -> list[Case]:
    """Return the commands that make model files."""
    quantize, straight, text = "quantize m.gguf Q4_K_M -t 1", "quantize tiny -t 1", "--calibration text.txt"
    quality = f"{straight} Q4_K_M --text text.txt --quality"
    return [
        Case("convert", "convert tiny -o out.gguf", places.checkpoint),
        Case("convert repo", "convert me/checkpoint"),
        Case("convert split", "convert tiny -o out.gguf --split-max-size 100KB", places.checkpoint),
        Case("quantize file", f"{quantize} -o out.gguf", places.model),
        Case("quantize stored", quantize, places.model),
        Case("quantize straight", f"{straight} Q4_K_M Q8_0", places.checkpoint),
        Case("quantize reproduce", "quantize m:Q4_K_M --reproduce -t 1", places.made),
        Case("quantize imatrix", f"{quantize} --imatrix made.gguf -o out.gguf", places.matrix),
        Case("quantize auto", f"{straight} Q4_K_M --imatrix auto {text}", places.checkpoint, share=0.5),
        Case("quantize tailored", f"{straight} {text} --target-size 80000B", places.checkpoint, says=False, share=0.4),
        Case("quantize quality", quality, places.checkpoint, says=False, share=0.4, between="^owm/models/local/"),
        Case("quality", "quality m.gguf other.gguf --text text.txt -c 64 -t 1", places.text, says=False, share=0.5),
        Case("imatrix", f"imatrix m.gguf {text} -c 64 -o made.gguf -t 1", places.text),
        Case("split", "split m.gguf --max-size 100KB -o parts", places.text),
        Case("merge", "merge parts/m-00001-of-00005.gguf -o out.gguf", places.parts),
        Case("export manifest", "export me/tiny out/ --with-manifest", places.pulled),
        Case("export hard", "export me/tiny out/ --link hard --with-manifest", places.pulled),
        Case("export", "export me/tiny out.gguf", places.pulled),
        Case("lock", "lock me/tiny:Q8_0 $PROOF_URL", places.both, says=False),
    ]


def _answering() -> list[Case]:
    """Return the commands that answer, and what is kept of answers."""
    batch = "batch rows.jsonl -m m.gguf -o out.jsonl --deterministic --errors bad.jsonl --temp 0 -t 1"
    journal, sessions = r"^here/out\.jsonl\.(journal|manifest\.json)$", "sessions list --json"
    chat, log = "chat m.gguf --temp 0 -t 1", r"^owm/logs/log\.db$"  # which has its tables before its first row
    return [
        Case("batch", batch, places.rows, says=False, between=journal),
        Case("run log", "run m.gguf Hi --log --temp 0 -t 1", places.scripted, also="logs --json", between=log),
        Case("run tuned", "run m.gguf Hi -n 4 --temp 0", places.tuned_model),
        Case("embed", "embed bert.gguf -f lines.txt --lines -o out.npy -t 1", places.bert),
        Case("chat", chat, places.scripted, stdin=b"one\ntwo\nthree\n", also=sessions),
        Case("chat continue", f"{chat} --continue", places.talked, stdin=b"three\nfour\n", also=sessions),
        Case("sessions export", "sessions export walrus -o out.html", places.titled, also=sessions),
        Case("sessions rm", "sessions rm walrus --yes", places.titled, also=sessions),
        Case("cache clear", "cache clear", places.snapshots, says=False, also="cache list --json"),
        Case("logs on", "logs on", also="logs --json"),
        Case("logs off", "logs off", places.logged, also="logs --json"),
        Case("logs clear", "logs clear --yes", places.logged, also="logs --json"),
    ]


def _keeping() -> list[Case]:
    """Return the commands that keep the store and the settings in order."""
    repair = "^hf/hub/.*/snapshots/"  # a link whose file is put aside
    library = "^hf/(token|stored_tokens)$"  # the Hub library writes them, and not in one step
    return [
        Case("alias", "alias mine ./m.gguf", places.model, also="alias --json"),
        Case("alias remove", "alias mine --remove", places.named, also="alias --json"),
        Case("config set", "config set temp=0.5 threads=1", places.named, also="config list --json"),
        Case("config unset", "config unset temp", places.named, also="config list --json"),
        Case("prompts save", "prompts save long --text 'Take your time.'", places.named, also="prompts list --json"),
        Case("prompts rm", "prompts rm short", places.named, also="prompts list --json"),
        Case("rm hub", "rm me/tiny:Q8_0 --yes", places.both, says=False, verify=(0, 3)),
        Case("rm own", "rm $PROOF_URL --yes", places.both, says=False, verify=(0, 3)),
        Case("prune", "prune --yes", places.litter, says=False),
        Case("store move", "store move ../disk", places.both),
        Case("store move hub", "store move ../disk --hub", places.both),
        Case("verify repair", "verify --repair", places.damaged, says=False, verify=(0, 3, 7), between=repair),
        Case("verify", "verify", places.both),
        Case("login", "login", stdin=f"{places.TOKEN}\n".encode(), between=library),
        Case("logout", "logout", places.logged_in),
    ]


def _measuring() -> list[Case]:
    """Return the commands that measure, and keep what they found."""
    tune = "bench m.gguf --tune --budget 5s"
    return [
        Case("bench", "bench m.gguf -p 8 -n 4 -r 1", places.measured, says=False, share=0.7, between=r"^owm/bench/"),
        Case("bench tune", tune, places.measured, says=False, share=0.1, also="tune list --json"),
        Case("tune rm", "tune rm m.gguf", places.tuned_model, also="tune list --json"),
        Case("doctor", "doctor --json", says=False, share=0.2),
    ]
