"""OpenAI's batch rows: what they may ask, what is refused by name, and answers that its SDK can read."""

import json
from typing import Any

import pytest

from owm.batch import openai
from owm.batch.fields import Asking, Refused
from owm.batch.openai import form_of, is_row, output_row
from owm.batch.row import Failure, Form, Record
from owm.engine.constrain import Constraint
from owm.engine.template import Thinking
from owm.settings.keys import MAX_SEED

HELLO = [{"role": "user", "content": "hello"}]


def chat(**body: Any) -> Asking:
    """Read a chat completion's row."""
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": HELLO, **body}}
    return openai.read_asking(row, is_raw=False)


def completion(*, is_raw: bool = False, **body: Any) -> Asking:
    """Read a completion's row."""
    row = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hello", **body}}
    return openai.read_asking(row, is_raw=is_raw)


@pytest.mark.parametrize(
    ("row", "is_openai"),
    [
        ({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}, True),
        ({"custom_id": "a", "body": {}}, True),
        ({"url": "/v1/completions", "body": {}}, True),
        ({"custom_id": "a", "method": "POST", "url": "/v1/completions"}, True),
        ({"prompt": "x", "url": "/v1/completions", "body": {}}, True),
        ({"prompt": "x", "url": "https://example.com", "body": "an article"}, False),
        ({"custom_id": "a", "prompt": "x"}, False),
        ({"custom_id": "a", "messages": HELLO, "body": {}}, False),
        ({"prompt": None, "custom_id": "a", "body": {}}, True),
        ({"custom_id": "a"}, False),
        ({"body": {}}, False),
        ({}, False),
    ],
)
def test_openai_rows_are_told_from_plain_ones(row: dict[str, Any], is_openai: bool) -> None:
    assert is_row(row) == is_openai


def test_the_form_of_an_answer_is_that_of_the_address() -> None:
    assert [form_of({"url": url}) for url in ("/v1/completions", "/v1/chat/completions", "/v1/x", 5, None)] == [
        "completion",
        *["chat"] * 4,
    ]


def test_a_chat_is_a_conversation_and_a_completion_a_prompt_without_a_template() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asking = chat(messages=[{"role": "developer", "content": "s"}, {"role": "user", "content": parts}])
    assert [turn["content"] for turn in asking.turns] == ["s", "a\nb"]
    assert (asking.prompt, asking.sampling, asking.wishes) == (None, {}, {})
    assert completion() == Asking((), "hello", {}, {"is_raw": True})
    assert completion(prompt=["hello"], is_raw=True) == Asking((), "hello", {}, {})


def test_settings_of_the_body_are_the_rows() -> None:
    body = {
        "temperature": 0.2,
        "top_p": 1,
        "max_completion_tokens": 5,
        "seed": 1,
        "stop": ["x"],
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "top_k": 3,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "ignore_eos": True,
    }
    for asking in (chat(**body), completion(**body)):
        assert asking.sampling == {
            "temp": 0.2,
            "top_p": 1.0,
            "seed": 1,
            "presence_penalty": 1.0,
            "frequency_penalty": -1.0,
            "top_k": 3,
            "min_p": 0.1,
            "repeat_penalty": 1.1,
            "ignore_eos": True,
        }
        assert {"max_tokens": 5, "stops": ("x",)}.items() <= asking.wishes.items()


def test_what_changes_no_answer_is_passed_over() -> None:
    body = {
        "model": "gpt-x",
        "user": "u",
        "metadata": {"a": 1},
        "store": True,
        "stream": False,
        "n": 1,
        "best_of": 1,
        "echo": False,
        "suffix": None,
        "logit_bias": {},
        "tools": [],
        "stop": None,
        "temperature": None,
        "response_format": {"type": "text"},
        "logprobs": False,
        "whatever": 5,
    }
    assert (chat(**body).sampling, chat(**body).wishes) == ({}, {})
    assert chat(n=None, best_of=None, tools=None) == chat()
    assert completion(**body).wishes == {"is_raw": True}


@pytest.mark.parametrize(
    ("wished", "schema"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "integer"}}},
            {"type": "integer"},
        ),
    ],
)
def test_a_response_format_is_a_schema(wished: dict[str, Any], schema: dict[str, Any]) -> None:
    assert chat(response_format=wished).wishes == {"constraint": Constraint.json_schema(schema)}


@pytest.mark.parametrize(
    ("body", "n_logprobs"),
    [
        ({"logprobs": True}, 1),
        ({"logprobs": True, "top_logprobs": 0}, 1),
        ({"logprobs": True, "top_logprobs": 5}, 5),
        ({"logprobs": False}, None),
        ({"logprobs": None, "top_logprobs": None}, None),
    ],
)
def test_probabilities_of_a_chat_are_switched_on_and_counted(body: dict[str, Any], n_logprobs: int | None) -> None:
    assert chat(**body).wishes.get("n_logprobs") == n_logprobs


def test_probabilities_of_a_completion_are_counted() -> None:
    assert [completion(logprobs=n).wishes.get("n_logprobs") for n in (0, 1, 3, None, False)] == [1, 1, 3, None, None]


def test_effort_is_the_models_thinking() -> None:
    assert chat(reasoning_effort="high").wishes == {"thinking": Thinking(effort="high")}
    assert chat(reasoning_effort="none").wishes == {"thinking": Thinking("off")}
    assert chat(reasoning_effort=None).wishes == {}


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        ({"method": "GET"}, "unsupported", "method must be POST"),
        ({"url": None}, "invalid_row", "the row has no url"),
        ({"url": "/v1/embeddings"}, "unsupported", "url must be /v1/chat/completions or /v1/completions"),
        ({"url": ["x"]}, "unsupported", "url must be /v1/chat/completions or /v1/completions"),
        ({"body": None}, "invalid_row", "the row has no body"),
        ({"body": "x"}, "invalid_row", "body must be an object"),
        ({"body": {}}, "invalid_row", "body has no messages"),
        ({"body": {"prompt": "x"}}, "invalid_row", "body has no messages"),
        ({"body": {"messages": "x"}}, "invalid_messages", "messages is no list of turns, it is a text"),
        ({"prompt": "x"}, "invalid_row", "the row has both a body and a prompt or messages of its own"),
        ({"url": "/v1/completions"}, "invalid_row", "body has no prompt"),
    ],
)
def test_a_row_that_is_wrong_is_refused(row: dict[str, Any], code: str, message: str) -> None:
    whole = {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": HELLO}, **row}
    with pytest.raises(Refused) as caught:
        openai.read_asking(whole, is_raw=False)
    assert (caught.value.code, str(caught.value)) == (code, message)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        *(
            ({name: value}, "unsupported", f"{name} is not supported in a batch")
            for name, value in {
                "n": 2,
                "best_of": 2,
                "stream": True,
                "echo": True,
                "suffix": "x",
                "logit_bias": {"5": 1},
                "tools": [{"type": "function"}],
                "functions": [{}],
                "audio": {"voice": "x"},
                "web_search_options": {"x": 1},
            }.items()
        ),
        ({"temperature": 500}, "invalid_value", "temperature must be between 0 and 100: 500"),
        ({"max_tokens": "x"}, "invalid_value", "max_tokens must be a whole number: 'x'"),
        ({"stop": 1}, "invalid_value", "stop must be a text or a list of texts"),
    ],
)
def test_what_owm_cannot_do_is_refused_by_name(body: dict[str, Any], code: str, message: str) -> None:
    for read in (chat, completion):
        with pytest.raises(Refused) as caught:
            read(**body)
        assert (caught.value.code, str(caught.value)) == (code, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"response_format": "json"}, "response_format must be of the type text, json_object or json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format must be of the type"),
        ({"response_format": {"type": "json_schema"}}, "response_format has no json_schema with a schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format has no json_"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, "the schema"),
        ({"logprobs": 5}, "logprobs must be true or false"),
        ({"top_logprobs": 5}, "top_logprobs needs logprobs to be true"),
        ({"logprobs": True, "top_logprobs": "x"}, "top_logprobs must be a whole number between 0 and 100: 'x'"),
        ({"reasoning_effort": "least"}, "reasoning_effort must be one of low, medium, high: least"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages, turn 1, part 1 is of the"),
    ],
)
def test_a_wrong_wish_of_a_chat_is_refused_by_name(body: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        chat(**body)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": ["a", "b"]}, "prompt must be a text, or a list of one text"),
        ({"prompt": [[1, 2]]}, "prompt must be a text, or a list of one text"),
        ({"prompt": 5}, "prompt must be a text"),
        ({"prompt": " "}, "prompt is empty"),
        ({"logprobs": True}, "logprobs must be a whole number between 0 and 100: True"),
    ],
)
def test_a_wrong_wish_of_a_completion_is_refused_by_name(body: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        completion(**body)
    assert str(caught.value).startswith(message)


def test_seeds_of_64_bits_and_the_least_effort_are_taken() -> None:
    assert [chat(seed=seed).sampling["seed"] for seed in (7, MAX_SEED + 8, -1)] == [7, 7, MAX_SEED]
    assert chat(reasoning_effort="minimal").wishes["thinking"] == Thinking("auto", "low")
    with pytest.raises(Refused, match="seed must be a whole number"):
        chat(seed=True)


def test_a_chat_needs_a_template() -> None:
    row = {"url": "/v1/chat/completions", "body": {"messages": HELLO}}
    with pytest.raises(Refused, match="--raw sends no template, so messages has no place"):
        openai.read_asking(row, is_raw=True)


LOGPROBS = [
    {
        "token": token,
        "logprob": -0.5,
        "bytes": list(token.encode()),
        "top_logprobs": [{"token": token, "logprob": -0.5, "bytes": list(token.encode())}],
    }
    for token in ("he", "llo")
]
ANSWER = {
    "text": "hello\n",
    "reasoning": "",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "reasoning_tokens": 1},
    "seed": 1,
}

# What the official SDK's types require (openai-python: types/chat/chat_completion.py, types/completion.py,
# types/completion_usage.py); a type in a tuple with None may be null.
_TEXT = (str,)
_TOKEN = {"token": _TEXT, "logprob": (float, int), "bytes": (list, None)}
REQUIRED: dict[Form, dict[str, Any]] = {
    "chat": {
        "body": {"id": _TEXT, "choices": (list,), "created": (int,), "model": _TEXT, "object": "chat.completion"},
        "choice": {
            "finish_reason": ("stop", "length", "tool_calls", "content_filter", "function_call"),
            "index": (int,),
            "logprobs": (dict, None),
            "message": (dict,),
        },
        "message": {"content": (str, None), "refusal": (str, None), "role": "assistant"},
    },
    "completion": {
        "body": {"id": _TEXT, "choices": (list,), "created": (int,), "model": _TEXT, "object": "text_completion"},
        "choice": {
            "finish_reason": ("stop", "length", "content_filter"),
            "index": (int,),
            "logprobs": (dict, None),
            "text": _TEXT,
        },
    },
}
USAGE = {"completion_tokens": (int,), "prompt_tokens": (int,), "total_tokens": (int,)}


def check_fields(value: dict[str, Any], required: dict[str, Any]) -> None:
    """Check that an object has all fields that it needs, of the right kinds."""
    for name, wanted in required.items():
        assert name in value, name
        if isinstance(wanted, str):
            assert value[name] == wanted
        elif isinstance(wanted[0], str):
            assert value[name] in wanted
        else:
            assert type(value[name]) in [kind if kind is not None else type(None) for kind in wanted], name


def record(form: Form = "chat", **fields: Any) -> Record:
    """Make the record of an answer."""
    said = {"number": 1, "key": "a", "id": "a", "digest": "d" * 16, "model": "m:1", "run": "r" * 16, "extra": {}}
    return Record(**{**said, "form": form, "answer": ANSWER, **fields})


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize("logprobs", [None, LOGPROBS, []])
@pytest.mark.parametrize("form", ["chat", "completion"])
def test_an_answer_has_all_that_the_sdk_requires(form: Form, logprobs: Any, finish_reason: str) -> None:
    row = output_row(record(form, answer={**ANSWER, "finish_reason": finish_reason, "logprobs": logprobs}))
    row = json.loads(json.dumps(row))
    check_fields(row, {"id": _TEXT, "custom_id": _TEXT, "response": (dict,), "error": (None,)})
    check_fields(row["response"], {"status_code": (int,), "request_id": _TEXT, "body": (dict,)})
    assert row["response"]["status_code"] == 200
    body = row["response"]["body"]
    check_fields(body, REQUIRED[form]["body"])
    check_fields(body["usage"], USAGE)
    (choice,) = body["choices"]
    check_fields(choice, REQUIRED[form]["choice"])
    if form == "chat":
        check_fields(choice["message"], REQUIRED[form]["message"])
        assert choice["message"]["content"] == "hello\n"
        for token in choice["logprobs"]["content"] if logprobs else ():
            check_fields(token, {**_TOKEN, "top_logprobs": (list,)})
            check_fields(token["top_logprobs"][0], _TOKEN)
    else:
        assert choice["text"] == "hello\n"
        assert choice["logprobs"] is None or len({len(column) for column in choice["logprobs"].values()}) == 1


def test_probabilities_of_a_completion_are_columns() -> None:
    row = output_row(record("completion", answer={**ANSWER, "logprobs": LOGPROBS}))
    assert row["response"]["body"]["choices"][0]["logprobs"] == {
        "tokens": ["he", "llo"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"he": -0.5}, {"llo": -0.5}],
        "text_offset": [0, 2],
    }


def test_thoughts_and_counts_are_kept() -> None:
    answer = {**ANSWER, "reasoning": "hm"}
    completed = output_row(record("completion", answer=answer))["response"]["body"]
    assert completed["choices"][0]["reasoning_content"] == "hm"
    body = output_row(record(answer=answer))["response"]["body"]
    assert body["choices"][0]["message"]["reasoning_content"] == "hm"
    assert (body["model"], body["created"]) == ("m:1", 0)
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_a_failed_row_is_an_error_without_a_response() -> None:
    row = output_row(record(answer=None, failure=Failure("too_long", "the prompt is too long")))
    assert (row["custom_id"], row["response"]) == ("a", None)
    assert row["error"] == {"code": "too_long", "message": "the prompt is too long"}


def test_the_same_answer_has_the_same_ids_and_another_has_others() -> None:
    first = output_row(record())
    assert first == output_row(record(number=9))
    others = [record(key="b"), record(model="m:2"), record(run="s" * 16)]
    assert len({first["id"], *(output_row(other)["id"] for other in others)}) == 4
    unique = first["id"].removeprefix("batch_req_")
    assert first["response"]["request_id"] == f"req_{unique}"
    assert first["response"]["body"]["id"] == f"chatcmpl-{unique}"


def test_a_custom_id_is_a_text_even_where_a_row_had_none() -> None:
    assert output_row(record(id=7, key="7"))["custom_id"] == "7"
    assert output_row(record(id=None, key="#3"))["custom_id"] == "#3"
