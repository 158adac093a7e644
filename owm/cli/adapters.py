"""`owm convert --lora`: an adapter and what it adapts."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli.output import Output
from owm.cli.writing import write_planned
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.store.refs import ModelRef


def convert_adapter(
    folder: Path, base: str | None, output: Path | None, type_name: str, dry_run: bool, out: Output
) -> None:
    """Convert an adapter; of its base only the config is needed."""
    from owm.convert.lora import execute_adapter, plan_adapter

    planned = plan_adapter(folder, _base_folder(folder, base, out), type_name=type_name)
    own_name = f"{folder.resolve().name or 'adapter'}-{planned.label}-LoRA"
    write = partial(execute_adapter, planned)
    write_planned(planned, write, output, out, name=f"the adapter {folder}", own_name=own_name, dry_run=dry_run)


def _base_folder(adapter: Path, asked: str | None, out: Output) -> Path:
    """Return a folder with the config of what an adapter adapts: the one asked for, or that the adapter names.

    Raises:
        UsageError: it names none, or none that can be found.
    """
    from owm.cli.progress import progress
    from owm.convert.peft import base_of
    from owm.library import fetch_config, open_store
    from owm.store import refs

    hint = "name the checkpoint that it adapts: `--base DIR` or `--base owner/repo`"
    named = asked or base_of(adapter)
    if named is None:
        raise UsageError(f"{adapter} does not say what it adapts", hint=hint)
    if (folder := Path(named).expanduser()).is_dir():
        return folder
    store = open_store()
    ref = store.aliases.expand(refs.parse(named)) if asked else _named_repo(adapter, named, hint)
    if ref.kind == "path":
        raise UsageError(f"no such folder: {named}", hint=hint)
    if asked is None:
        out.note(f"the base is {named}, as the adapter says")
    with progress(out) as sink:
        return fetch_config(ref, store=store, sink=sink)


def _named_repo(adapter: Path, named: str, hint: str) -> "ModelRef":
    """Read the name that an adapter gives: a stranger's word, taken for a repo of the Hub or for nothing."""
    from owm.store import refs

    try:
        ref = refs.parse(named)
    except UsageError:
        ref = None
    if ref is None or ref.kind != "hub":
        raise UsageError(f"{adapter} adapts {ascii(named)[1:-1][:80]}, which is not here", hint=hint)
    return ref
