"""The card of a Hub repo: what the Hub's answer says, in owm's words."""

from datetime import datetime
from typing import Any

from owm.store.card import Card, count, field, text, texts


def card_of(info: Any) -> Card:
    """Read a card from what the Hub's library made of the Hub's answer, for one repo or for one of a search."""
    said = info.card_data.to_dict() if info.card_data is not None else {}
    tags = texts(info.tags or ())
    licence = ", ".join(texts(said.get("license"))) or _tagged(tags, "license:")
    safetensors = info.safetensors
    return Card(
        author=text(info.author) or text((info.id or "").partition("/")[0]),
        licence=licence,
        licence_name=text(said.get("license_name")),
        licence_link=text(said.get("license_link")),
        base_models=texts(said.get("base_model")) or _base_of_tags(tags),
        relation=text(said.get("base_model_relation")) or _relation_of_tags(tags),
        datasets=texts(said.get("datasets")),
        languages=texts(said.get("language")),
        tags=tags,
        task=text(info.pipeline_tag),
        gate=info.gated if info.gated in ("auto", "manual") else ("auto" if info.gated else None),
        is_private=bool(info.private),
        architecture=text(field(info.gguf, "architecture")) or text(field(info.config, "model_type")),
        n_params=count(field(info.gguf, "total")) or count(getattr(safetensors, "total", None)),
        n_ctx_train=count(field(info.gguf, "context_length")),
        n_downloads=count(info.downloads),
        n_likes=count(info.likes),
        modified=info.last_modified.isoformat() if isinstance(info.last_modified, datetime) else None,
    )


def _tagged(tags: tuple[str, ...], prefix: str) -> str | None:
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), None)


def _base_of_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    named = [tag.removeprefix("base_model:") for tag in tags if tag.startswith("base_model:")]
    return tuple(dict.fromkeys(name.rpartition(":")[2] for name in named))


def _relation_of_tags(tags: tuple[str, ...]) -> str | None:
    named = [tag.split(":") for tag in tags if tag.startswith("base_model:")]
    return next((parts[1] for parts in named if len(parts) == 3), None)
