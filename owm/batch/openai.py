"""OpenAI's batch files: their rows, and the rows of their output.

What owm cannot do is refused by name; what does not change an answer (`model`, `user`, `metadata`, …) is passed over.
ref: the OpenAI API reference, "The request input object" and "The request output object" of batches
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from owm.batch.fields import (
    SAMPLED,
    Asking,
    Refused,
    check_template,
    conversation,
    question,
    read_effort,
    read_n_logprobs,
    read_overrides,
)
from owm.batch.row import Form, Record
from owm.settings.keys import MAX_SEED

if TYPE_CHECKING:
    from owm.engine.template import Thinking

_FORMS: dict[str, Form] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
_OVERRIDES = frozenset((*SAMPLED, "temperature", "ignore_eos", "max_tokens", "max_completion_tokens", "stop"))
_LEAST_LOGPROBS = 1  # owm tells the taken token's probability only together with the likeliest

# What would change the answer, and the test of whether it does.
_REFUSED: dict[str, Callable[[Any], bool]] = {
    "n": lambda value: value != 1,
    "best_of": lambda value: value != 1,
    **dict.fromkeys(("stream", "echo", "suffix", "logit_bias"), bool),
    **dict.fromkeys(("tools", "functions", "audio", "web_search_options"), bool),
}


def is_row(value: Mapping[str, Any]) -> bool:
    """Tell an OpenAI row from a plain one; a plain one may well have fields of its own named `url` and `body`."""
    if _asks_plainly(value):
        return "url" in value and isinstance(value.get("body"), dict)
    return sum(name in value for name in ("custom_id", "method", "url", "body")) > 1


def _asks_plainly(value: Mapping[str, Any]) -> bool:
    return value.get("prompt") is not None or value.get("messages") is not None


def form_of(value: Mapping[str, Any]) -> Form:
    """Return the form that the answer to an OpenAI row has, whatever may be wrong with it."""
    url = value.get("url")
    return _FORMS.get(url, "chat") if isinstance(url, str) else "chat"


def read_asking(value: Mapping[str, Any], *, is_raw: bool) -> Asking:
    """Return what an OpenAI row asks.

    Raises:
        Refused: it is wrong, or asks for what owm cannot do.
    """
    method, url, body = value.get("method", "POST"), value.get("url"), value.get("body")
    if _asks_plainly(value):
        raise Refused("invalid_row", "the row has both a body and a prompt or messages of its own")
    if method != "POST":
        raise Refused("unsupported", "method must be POST")
    if url is None:
        raise Refused("invalid_row", "the row has no url")
    if not isinstance(url, str) or url not in _FORMS:
        raise Refused("unsupported", f"url must be {' or '.join(_FORMS)}")
    if not isinstance(body, dict):
        raise Refused("invalid_row", "the row has no body" if body is None else "body must be an object")
    for name, item in body.items():
        if item is not None and name in _REFUSED and _REFUSED[name](item):
            raise Refused("unsupported", f"{name} is not supported in a batch")
    said = {name: item for name, item in body.items() if name in _OVERRIDES}
    if isinstance(seed := said.get("seed"), int) and not isinstance(seed, bool):
        said["seed"] = seed % (MAX_SEED + 1)  # theirs have 64 bits
    if _FORMS[url] == "completion":
        return _completion(body, said, is_raw=is_raw)
    return _chat(body, said, is_raw=is_raw)


def _chat(body: dict[str, Any], said: dict[str, Any], *, is_raw: bool) -> Asking:
    check_template(is_raw=is_raw, given={"messages": body.get("messages")})
    if body.get("messages") is None:
        raise Refused("invalid_row", "body has no messages")
    turns = conversation(body["messages"], None, "messages")
    shape = _schema(body.get("response_format"))
    if shape is not None:
        said["schema"] = shape
    sampling, wishes = read_overrides(said)
    if (n_logprobs := _n_chat_logprobs(body)) is not None:
        wishes["n_logprobs"] = n_logprobs
    if (effort := body.get("reasoning_effort")) is not None:
        wishes["thinking"] = _thinking(effort)
    return Asking(turns, sampling=sampling, wishes=wishes)


def _completion(body: dict[str, Any], said: dict[str, Any], *, is_raw: bool) -> Asking:
    prompt = body.get("prompt")
    if prompt is None:
        raise Refused("invalid_row", "body has no prompt")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise Refused("unsupported", "prompt must be a text, or a list of one text")
        prompt = prompt[0]
    asking = question(prompt, None, is_raw=True)
    sampling, wishes = read_overrides(said)
    if (logprobs := body.get("logprobs")) is not None and logprobs is not False:
        wishes["n_logprobs"] = max(read_n_logprobs(logprobs, "logprobs"), _LEAST_LOGPROBS)
    if not is_raw:
        wishes["is_raw"] = True
    return asking._replace(sampling=sampling, wishes=wishes)


def _n_chat_logprobs(body: Mapping[str, Any]) -> int | None:
    is_wished, n_likeliest = body.get("logprobs"), body.get("top_logprobs")
    if is_wished is not None and not isinstance(is_wished, bool):
        raise Refused("invalid_value", "logprobs must be true or false")
    if not is_wished:
        if n_likeliest:
            raise Refused("invalid_value", "top_logprobs needs logprobs to be true")
        return None
    return max(read_n_logprobs(n_likeliest or 0, "top_logprobs"), _LEAST_LOGPROBS)


def _thinking(effort: Any) -> "Thinking":
    from owm.engine.template import Thinking

    if effort == "none":
        return Thinking("off")
    return read_effort("low" if effort == "minimal" else effort, "reasoning_effort")


def _schema(wished: Any) -> Any:
    """Return the schema of a `response_format`, None if the answer is free."""
    if wished is None:
        return None
    kind = wished.get("type") if isinstance(wished, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise Refused("invalid_shape", "response_format must be of the type text, json_object or json_schema")
    inner = wished.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise Refused("invalid_shape", "response_format has no json_schema with a schema")
    return schema


def output_row(record: Record) -> dict[str, Any]:
    """Return a row of the output. The same answer of the same run has the same ids and no time, whenever it is made."""
    name = "\0".join((record.run, record.key, record.model)).encode("utf-8", "replace")
    unique = hashlib.blake2b(name, digest_size=12).hexdigest()
    row: dict[str, Any] = {
        "id": f"batch_req_{unique}",
        "custom_id": record.key if record.id is None else str(record.id),
        "response": None,
        "error": None,
    }
    if record.answer is None:
        failure = record.failure
        row["error"] = {"code": failure and failure.code, "message": failure and failure.message}
        return row
    body = _completed(record.answer) if record.form == "completion" else _chatted(record.answer)
    prefix = "cmpl" if record.form == "completion" else "chatcmpl"
    body = {"id": f"{prefix}-{unique}", **body, "usage": _usage(record.answer.get("usage") or {})}
    body = {**body, "model": record.model, "created": 0}
    row["response"] = {"status_code": 200, "request_id": f"req_{unique}", "body": body}
    return row


def _chatted(answer: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer["text"], "refusal": None}
    if answer.get("reasoning"):
        message["reasoning_content"] = answer["reasoning"]
    logprobs = answer.get("logprobs")
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": answer["finish_reason"],
    }
    return {"object": "chat.completion", "choices": [choice]}


def _completed(answer: Mapping[str, Any]) -> dict[str, Any]:
    logprobs = answer.get("logprobs")
    choice = {
        "index": 0,
        "text": answer["text"],
        "logprobs": None if logprobs is None else _columns(logprobs),
        "finish_reason": answer["finish_reason"],
    }
    if answer.get("reasoning"):
        choice["reasoning_content"] = answer["reasoning"]
    return {"object": "text_completion", "choices": [choice]}


def _columns(logprobs: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Say probabilities as /v1/completions does: a list for each of their parts."""
    offsets, end = [], 0
    for each in logprobs:
        offsets.append(end)
        end += len(each["token"])
    return {
        "tokens": [each["token"] for each in logprobs],
        "token_logprobs": [each["logprob"] for each in logprobs],
        "top_logprobs": [{top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in logprobs],
        "text_offset": offsets,
    }


def _usage(usage: Mapping[str, int]) -> dict[str, Any]:
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
    }
