"""What is taken from a card, however it is written; what has another form than expected counts as not said."""

from typing import Any

import pytest

from owm.store import pull
from owm.store.card import MAX_ITEMS, MAX_TEXT, Card
from owm.store.local import Store
from owm.store.refs import parse
from support.facts import model_bytes
from support.hub_server import HubServer, Repo

FILES = {"m-Q4_K_M.gguf": model_bytes(1000)}


def card(hub: HubServer, store: Store, **repo: Any) -> Card:
    hub.add(Repo("o/r", FILES, **repo))
    found = pull.look(parse("o/r"), store).offer.card
    assert found is not None
    return found


def test_facts_of_the_card_and_of_the_hub_are_taken(hub: HubServer, store: Store) -> None:
    found = card(
        hub,
        store,
        licence="other",
        gated=True,
        card={
            "license_name": "lfm1.0",
            "license_link": "https://host/LICENSE",
            "base_model": ["a/base", "b/base"],
            "base_model_relation": "merge",
            "datasets": ["c/data"],
            "language": ["en", "de"],
        },
        facts={
            "gguf": {"total": 1_235_814_432, "architecture": "llama", "context_length": 131072},
            "downloads": 7,
            "likes": 3,
            "lastModified": "2025-03-04T10:00:00.000Z",
            "pipeline_tag": "text-generation",
        },
    )
    assert (found.licence, found.licence_name, found.licence_link) == ("other", "lfm1.0", "https://host/LICENSE")
    assert (found.base_models, found.relation) == (("a/base", "b/base"), "merge")
    assert (found.datasets, found.languages, found.task) == (("c/data",), ("en", "de"), "text-generation")
    assert (found.architecture, found.n_params, found.n_ctx_train) == ("llama", 1_235_814_432, 131072)
    assert (found.n_downloads, found.n_likes, found.gate) == (7, 3, "auto")
    assert (found.modified or "").startswith("2025-03-04")


def test_the_licence_of_the_offer_is_the_name_where_there_is_one(hub: HubServer, store: Store) -> None:
    hub.add(Repo("o/r", FILES, licence="other", card={"license_name": "lfm1.0"}))
    assert pull.look(parse("o/r"), store).offer.licence == "lfm1.0"


def test_a_base_model_is_known_by_the_tags_too(hub: HubServer, store: Store) -> None:
    tags = ["gguf", "base_model:a/base", "base_model:quantized:a/base", "license:mit"]
    found = card(hub, store, licence=None, facts={"tags": tags})
    assert (found.base_models, found.relation, found.licence) == (("a/base",), "quantized", "mit")


def test_several_licences_are_all_said(hub: HubServer, store: Store) -> None:
    assert card(hub, store, licence=None, card={"license": ["apache-2.0", "mit"]}).licence == "apache-2.0, mit"


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ({"license_name": 5, "base_model": {"a": 1}, "datasets": [1, None, {}], "language": 7}, {}),
        ({}, {"gguf": {"total": "many", "architecture": ["x"], "context_length": -1}, "downloads": "x", "likes": True}),
        ({}, {"gguf": [], "tags": "gguf", "pipeline_tag": {}}),
    ],
)
def test_what_has_the_wrong_form_is_not_said(
    hub: HubServer, store: Store, said: dict[str, Any], facts: dict[str, Any]
) -> None:
    found = card(hub, store, card=said, facts=facts)
    assert (found.licence_name, found.base_models, found.datasets, found.languages) == (None, (), (), ())
    assert (found.architecture, found.n_params, found.n_ctx_train, found.n_likes) == (None, None, None, None)


def test_a_card_of_any_length_is_cut(hub: HubServer, store: Store) -> None:
    found = card(hub, store, card={"datasets": [f"d{i}" for i in range(1000)], "license_link": "x" * 10_000})
    assert len(found.datasets) == MAX_ITEMS
    assert len(found.licence_link or "") == MAX_TEXT
