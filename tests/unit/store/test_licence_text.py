"""Licences known by their texts, and Ollama's parameters as advice on sampling."""

import json

import pytest

from owm.store.licence_text import licence_of
from owm.store.ollama_files import generation_config


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\n        Apache License\n   Version 2.0, January 2004", "apache-2.0"),
        ("MIT License\n\nCopyright (c) 2025", "mit"),
        ("Copyright x\nPermission is hereby granted, free of\ncharge, to any person obtaining", "mit"),
        ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "llama3.1"),
        ("**Llama 3.2** Version: Llama 3.2 Community License Agreement", "llama3.2"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "llama3"),
        ("Gemma Terms of Use\n\nLast modified", "gemma"),
        ("Qwen RESEARCH LICENSE AGREEMENT", "qwen-research"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "cc-by-nc-4.0"),
        ("Falcon-180B TII License Version 1.0", "falcon-180b"),
        ("Falcon 2 11B TII License Version 1.0, partly based on the Apache License Version 2.0", "falcon-llm-license"),
        ("TII Falcon License 2.0", "falcon-llm-license"),
        ("TII Falcon LLM License Version 1.0", "tii-falcon-llm-1.0"),  # not in the table, and so said to be unknown
        ("Modified MIT License\n\nPermission is hereby granted, free of charge, to any person", "modified-mit"),
        ("my own words", None),
        ("", None),
    ],
)
def test_a_licence_is_known_by_its_beginning(text: str, name: str | None) -> None:
    assert licence_of(text) == name


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (b'{"temperature": 1, "stop": ["x"], "repeat_penalty": 1.1}', {"temperature": 1, "repetition_penalty": 1.1}),
        (b'{"stop": ["x"], "num_ctx": 4096}', None),
        (b'{"temperature": "hot", "top_k": true}', None),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_parameters_that_are_about_sampling(params: bytes, found: dict[str, float] | None) -> None:
    text = generation_config(params)
    assert (None if text is None else json.loads(text)) == found
