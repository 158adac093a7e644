"""Licences in plain words: those that models are published under are known, all others are said to be unknown."""

import re

import pytest

from owm.store import catalog, licences
from owm.store.licences import LICENCES, find, say


@pytest.mark.parametrize(
    ("name", "commercial", "words"),
    [
        ("apache-2.0", "yes", "any use, changes, and passing on with the licence"),
        ("mit", "yes", "any use"),
        ("llama2", "conditions", "700 million users"),
        ("llama3.1", "conditions", "begin with `Llama`"),
        ("llama3.2", "conditions", "people and companies of the EU"),
        ("llama4", "conditions", "people and companies of the EU"),
        ("gemma", "yes", "forbidden uses"),
        ("qwen", "conditions", "100 million users"),
        ("qwen-research", "no", "only research"),
        ("deepseek", "yes", "forbidden uses"),
        ("cc-by-nc-4.0", "no", "naming the authors"),
        ("bigscience-openrail-m", "yes", "forbidden uses"),
        ("mrl", "no", "only research"),
        ("nvidia-open-model-license", "yes", "safeguards"),
        ("lfm1.0", "conditions", "10 million dollars"),
        ("falcon-llm-license", "yes", "acceptable use policy"),
    ],
)
def test_a_known_licence_says_what_it_permits(name: str, commercial: str, words: str) -> None:
    licence = find(name)
    assert licence is not None
    assert licence.commercial == commercial
    assert words in say(name)
    assert licence.title in say(name)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("apache 2.0", "apache-2.0"),
        (" MIT ", "mit"),
        ("Llama-3.2", "llama3.2"),
        ("llama_3.2_community_license", "llama3.2"),
        ("Qwen License Agreement", "qwen"),
        ("Gemma Terms of Use", "gemma"),
    ],
)
def test_a_licence_is_known_by_the_ways_it_is_written(written: str, name: str) -> None:
    found = find(written)
    assert found is not None
    assert found.id == name


@pytest.mark.parametrize(
    "name", ["llama9", "mit-but-not-quite", "gemma-2", "apache-2.0, mit", "modified-mit", "\x1b[2J"]
)
def test_what_is_not_in_the_table_is_unknown_and_never_guessed(name: str) -> None:
    assert find(name) is None
    assert "unknown to owm, read it" in say(name)
    assert say(name, "https://host/LICENSE").count("https://host/LICENSE") == 1


def test_no_licence_is_no_permission() -> None:
    assert find(None) is None
    assert say(None) == "not stated, so nothing is known to be permitted"
    assert say("") == say(None)


def test_other_is_what_the_page_says() -> None:
    assert "read it at https://host/x before" in say("other", "https://host/x")
    assert "read it there before" in say("other")


@pytest.mark.parametrize("licence", LICENCES.values(), ids=list(LICENCES))
def test_each_is_one_sentence_in_the_words_of_the_house(licence: licences.Licence) -> None:
    for words in (licence.sentence(), *licence.lines().values()):
        assert words
        assert not re.search(r"\.$|\. |\n|\bnone\b|None", words), words
    assert list(licence.lines())[:3] == ["commercial use", "changes", "passing on"]
    assert set(licence.record()) == {"id", "title", "commercial_use", "changes", "sharing", "terms"}
    assert find(licence.title) in (licence, find(licence.id))
    if licence.commercial != "yes":
        assert licence.commercial_terms, "what the condition is has to be said"
    assert licence.is_free == licence.sentence().startswith("any use")


def test_every_other_name_leads_to_a_licence() -> None:
    assert {name for name in licences._ALSO.values() if name not in LICENCES} == set()
    assert not set(licences._ALSO) & set(LICENCES), "a name that is a licence of its own needs no other"


def test_the_licences_of_all_short_names_are_known() -> None:
    read = catalog.load()
    named = {entry.licence for entry in read.entries.values()} | {pin.licence for pin in read.wheels.values()}
    assert {name for name in named if find(name) is None} == set()
