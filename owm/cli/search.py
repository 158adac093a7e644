"""`owm search`: find models on the Hub by words, size, architecture and licence."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from owm.store.sources.hub_search import FoundRepo

WordsArg = Annotated[
    list[str] | None,
    typer.Argument(metavar="WORDS…", help="Words of a model's name; none: the most used ones.", show_default=False),
]
ArchOpt = Annotated[
    str | None,
    typer.Option("--arch", metavar="NAME", help="Of this architecture: `llama`, `qwen3`, …", show_default=False),
]
SizeOpt = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="N",
        help="With so many parameters: `8B` (about), `3B-9B`, `<4B`, `>30B`.",
        show_default=False,
    ),
]
LicenseOpt = Annotated[
    str | None,
    typer.Option(
        "--license",
        "--licence",
        metavar="ID",
        help="Under this licence, as its page names it: `apache-2.0`, `llama3.2`, …",
        show_default=False,
    ),
]
SortOpt = Annotated[
    str,
    typer.Option("--sort", metavar="downloads|likes|trending|created|modified", help="What comes first."),
]
LimitOpt = Annotated[int, typer.Option("--limit", metavar="N", help="Show so many at most.")]
CheckpointsOpt = Annotated[
    bool, typer.Option("--checkpoints", help="Original weights (safetensors) instead of model files (GGUF).")
]


def command(
    words: WordsArg = None,
    arch: ArchOpt = None,
    size: SizeOpt = None,
    licence: LicenseOpt = None,
    sort: SortOpt = "downloads",
    limit: LimitOpt = 20,
    checkpoints: CheckpointsOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Search the Hub for models."""
    from owm.errors import UsageError
    from owm.library.finding import find_repos, size_range
    from owm.store.sources.hub_search import SORTS, Wanted

    out = Output(json, quiet, verbose)
    if sort not in SORTS:
        raise UsageError(f"no such order: {sort}", hint=f"--sort takes {', '.join(SORTS)}")
    least, most = size_range(size) if size is not None else (None, None)
    wanted = Wanted(
        words=tuple(words or ()),
        architecture=arch,
        licence=licence,
        least_params=least,
        most_params=most,
        sort=sort,
        limit=limit,
        formats=("safetensors",) if checkpoints else ("gguf",),
    )
    found = find_repos(wanted)
    if json:
        out.data([record(repo) for repo in found])
        return
    if not found:
        out.note(_nothing(wanted.words, is_narrowed=any((arch, size, licence))))
        return
    _say(found, out)


def record(repo: "FoundRepo") -> dict[str, Any]:
    """Return what `--json` says of a repo."""
    from owm.store import licences

    card = repo.card
    known = licences.find(repo.licence)
    return {
        "name": repo.name,
        "author": card.author,
        "licence": repo.licence,
        "commercial_use": known.commercial if known else None,
        "is_gated": card.gate is not None,
        "architecture": card.architecture,
        "n_params": card.n_params,
        "n_ctx_train": card.n_ctx_train,
        "task": card.task,
        "base_models": list(card.base_models),
        "n_downloads": card.n_downloads,
        "n_likes": card.n_likes,
        "modified": card.modified,
    }


def _say(found: "list[FoundRepo]", out: Output) -> None:
    import sys

    from owm.cli.terminal import is_terminal
    from owm.units import format_count

    rows = [
        {
            "name": repo.name,
            "params": format_count(repo.card.n_params) if repo.card.n_params else "",
            "arch": repo.card.architecture or "",
            "licence": (repo.licence or "not stated") + (", gated" if repo.card.gate else ""),
            "downloads": format_count(repo.card.n_downloads) if repo.card.n_downloads is not None else "",
            "modified": (repo.card.modified or "")[:10],
        }
        for repo in found
    ]
    headings = {
        "name": "NAME", "params": "PARAMS", "arch": "ARCH", "licence": "LICENCE", "downloads": "DOWNLOADS",
        "modified": "MODIFIED",
    }  # fmt: skip
    out.table(rows, headings, right=("params", "downloads"))
    if is_terminal(sys.stdout):
        out.note("`owm show NAME` says more of one, `owm pull NAME` fetches it")


def _nothing(words: "Sequence[str]", *, is_narrowed: bool) -> str:
    said = f" for {' '.join(words)}" if words else ""
    rest = "fewer words or bounds find more" if words and is_narrowed else "other words may find some"
    return f"no models found{said}; {rest}"
