"""Chat templates, from wherever a checkpoint keeps them: one, or several with names."""

from pathlib import Path

from owm.convert.vocabulary.files import TokenizerFiles, is_text, read_text

KEY = "tokenizer.chat_template"
_NAME_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
MAX_TEMPLATES = 64


def read_chat_templates(files: TokenizerFiles) -> dict[str, str | list[str | bytes]]:
    """Return the metadata of the chat templates: the default one, named ones, and their names.

    tokenizer_config.json wins over chat_template.jinja, and that over chat_template.json. A template of the wrong type
    is left out.
    """
    found = (files.tokenizer_config or {}).get("chat_template")
    if found is None:
        found = _from_files(files)
    if is_text(found):
        return {KEY: str(found)}
    if not isinstance(found, list):
        return {}
    default: str | None = None
    named: dict[str, str] = {}
    for entry in found[:MAX_TEMPLATES]:
        name, template = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not is_text(template):
            continue
        name = "".join(letter if letter in _NAME_LETTERS else "_" for letter in name)
        if name == "default":
            default = template
        elif name and template:
            named[name] = str(template)
    metadata: dict[str, str | list[str | bytes]] = {f"{KEY}.{name}": template for name, template in named.items()}
    if named:
        metadata["tokenizer.chat_templates"] = list[str | bytes](sorted(named))
    if default is not None:
        metadata[KEY] = default
    return metadata


def _from_files(files: TokenizerFiles) -> object:
    if path := files.path("chat_template.jinja"):
        default = read_text(path)
        extra = sorted((files.folder / "additional_chat_templates").glob("*.jinja"))
        if not extra:
            return default
        return [{"name": "default", "template": default}, *(_named(path) for path in extra[:MAX_TEMPLATES])]
    alone = files.json("chat_template.json")
    return alone.get("chat_template") if alone else None


def _named(path: Path) -> dict[str, str]:
    return {"name": path.stem, "template": read_text(path)}
