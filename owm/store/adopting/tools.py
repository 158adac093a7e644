"""The tools whose models can be adopted, one row each, and what a person may mean by a source."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from owm.errors import ModelNotFound, UsageError
from owm.paths import hub_cache
from owm.store.adopting import folder, huggingface, llamacpp, lmstudio, ollama
from owm.store.adopting.found import Finding, Found, LeftOut, cannot_look
from owm.store.model import read_error


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: where it keeps models on this machine, and how they are found there."""

    title: str
    names: tuple[str, ...]
    places: Callable[[Path, Mapping[str, str]], Sequence[Path]]
    search: Callable[[Path], list[Finding]]


def _hub_places(_home: Path, environ: Mapping[str, str]) -> list[Path]:
    return [hub_cache(environ)]


TOOLS = (
    Tool(ollama.OWNER, ("ollama",), ollama.places, ollama.search),
    Tool(lmstudio.OWNER, ("lmstudio", "lm-studio"), lmstudio.places, lmstudio.search),
    Tool(llamacpp.OWNER, ("llama.cpp", "llamacpp"), llamacpp.places, llamacpp.search),
    Tool(huggingface.OWNER, ("huggingface", "hf"), _hub_places, huggingface.search),
)


def search(source: str, environ: Mapping[str, str] | None = None, *, skip: Sequence[Path] = ()) -> list[Finding]:
    """Find the models of a source: a tool by its name, a folder or a file.

    Args:
        skip: folders that are left alone within one of the user's.

    Raises:
        UsageError: it is none of these.
        ModelNotFound: the tool, the folder or the file has no models.
        StoreError: it cannot be read.
    """
    for tool in TOOLS:
        if source.lower() in tool.names:
            return _search_tool(tool, os.environ if environ is None else environ)
    if not source.strip():
        raise UsageError("no source is named", hint=f"it is {_choices()}")
    try:
        path = Path(source).expanduser()
        if path.exists() and (findings := _within_a_tool(path, os.environ if environ is None else environ)):
            return findings
        if path.is_file():
            return folder.single(path)
        if path.is_dir():
            return _search_folder(path, skip)
        exists = path.exists()
    except PermissionError as error:
        raise read_error(error, Path(source)) from error
    except (OSError, RuntimeError, ValueError):
        exists = False
    if exists:
        raise ModelNotFound(f"neither a folder nor a file: {source}", ref=source, hint="check the path")
    if os.sep in source or source.startswith("~") or source.lower().endswith(".gguf"):
        raise ModelNotFound(f"no such folder or file: {source}", ref=source, hint="check the path")
    raise UsageError(
        f"nothing is known by the name {source!r} to import from",
        hint=f"it is {_choices()}",
    )


def _choices() -> str:
    return f"{', '.join(tool.names[0] for tool in TOOLS)}, a folder or a file"


def _search_tool(tool: Tool, environ: Mapping[str, str]) -> list[Finding]:
    there = tool_folders(tool, environ)
    findings = [finding for place in there for finding in (*_closed(tool, place), *tool.search(place))]
    if findings:
        return findings
    places = there or [Path(each) for each in tool.places(_home(environ), environ)]
    hint = "`--from` takes the folder of models itself, if it lies elsewhere"
    if tool.title == llamacpp.OWNER:
        hint += "; newer versions keep models in the Hugging Face cache: `--from huggingface`"
    listing = ", ".join(map(str, places[:4]))
    raise ModelNotFound(f"no models of {tool.title} here, in {listing}", ref=tool.names[0], hint=hint)


def _closed(tool: Tool, place: Path) -> list[Finding]:
    """Tell of a folder that may not be read."""
    try:
        os.listdir(place)
    except OSError as error:
        return [LeftOut(tool.title, tool.names[0], place, cannot_look(error, place))]
    return []


def tool_folders(tool: Tool, environ: Mapping[str, str]) -> list[Path]:
    """Return those of a tool's places that are there, each once."""
    found: dict[str, Path] = {}
    for place in tool.places(_home(environ), environ):
        try:
            os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # there, and not to be read: the search says so
            pass
        found.setdefault(os.path.realpath(place), place)
    return list(found.values())


def _within_a_tool(path: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Find what lies at a path that is inside a tool's own folder, by the names that the tool gives it."""
    for tool in TOOLS:
        for place in tool_folders(tool, environ):
            wanted = Path(os.path.abspath(path))
            if wanted.is_relative_to(os.path.abspath(place)):
                return [each for each in tool.search(place) if wanted in _lineage(each)]
    return []


def _lineage(finding: Finding) -> set[Path]:
    """Return the paths of what was found, and the folders that it lies in."""
    paths = [file.path for file in finding.files] if isinstance(finding, Found) else [finding.path]
    return {each for path in paths for each in (Path(os.path.abspath(path)), *Path(os.path.abspath(path)).parents)}


def _search_folder(top: Path, skip: Sequence[Path]) -> list[Finding]:
    findings = folder.search(top, skip=skip)
    if not findings:
        raise ModelNotFound(f"no GGUF file in {top}", ref=str(top), hint="model files end in `.gguf`")
    return findings


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))
