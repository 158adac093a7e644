"""tests/hostile/README.md, made of the gallery: a row for each file."""

from pathlib import Path

from hostile.gallery import DEADLY, EXHIBITS, Exhibit

PATH = Path(__file__).resolve().parents[1] / "README.md"
HEAD = """\
# Hostile files

Written by `scripts/hostile_survey --write`; do not edit by hand.

Each of these {n_all} files is made by a small function of `gallery/`, wrong in one thing and right in all others, and
owm refuses it with a cause of its own (`test_gallery.py`). The last column is what llama.cpp's own tool does with it,
`llama-completion -m FILE -n 1 -p x` (`--lora FILE` for adapters), as `scripts/hostile_survey` finds it with the build
that owm uses: {n_deadly} of them take its process down, in bold. {n_unread} are no files that it reads.

Beside the gallery, the other tests of this folder cut and change such files byte by byte.
"""
TITLES = {
    "model": "Models",
    "weights": "Weights (`owm verify --full`)",
    "adapter": "Adapters",
    "checkpoint": "Checkpoints",
    "manifest": "Manifests of the store",
}


def table() -> str:
    """Write the page."""
    all_of_them = EXHIBITS.values()
    n_deadly = sum(each.fate in DEADLY for each in all_of_them)
    n_unread = sum(each.fate == "unread" for each in all_of_them)
    lines = [HEAD.format(n_all=len(EXHIBITS), n_deadly=n_deadly, n_unread=n_unread)]
    for kind, title in TITLES.items():
        lines += [f"## {title}", "", "| File | What is wrong with it | owm | llama.cpp |", "| --- | --- | --- | --- |"]
        lines += [_row(each) for each in all_of_them if each.kind == kind]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(exhibit: Exhibit) -> str:
    fate = f"**{exhibit.fate}**" if exhibit.fate in DEADLY else exhibit.fate
    says = exhibit.says.strip().replace("|", "\\|")
    return f"| {exhibit.name} | {exhibit.attack} | {says} (exit code {exhibit.code}) | {fate} |"
