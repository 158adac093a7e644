"""What must not be said: passwords and signatures in addresses, and tokens, taken out of what goes to stderr.

Nothing says them on purpose. This is for words of others (a library, a server, pip) that end in a message or traceback.
"""

import os
import re

from owm.cli.terminal import one_line

HIDDEN = "***"
_LEAST_LENGTH = 8  # of a value in the environment; shorter ones are words

_NAMES = re.compile(r"TOKEN|PASSW|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
# Every pattern here takes time in proportion to the text, whatever the text: strangers write it.
_ADDRESS = re.compile(r"//[^\s\"'`<>]+")
_PATH = re.compile(r"[/?#]")
_HOST = re.compile(r"\[.*|[^:]*:\d{0,5}")  # whose colon is no user's
_PROXY = re.compile(r"(?<![^\s\"'`<>])[^\s:@/\"'`<>]+:(?!//)[^\s\"'`<>]*@(?=[\w.-]+:\d{2,5}(?!\w))")
_PARAMETER = re.compile(
    r"(?<=[?&#;])((?:access_|refresh_|id_|auth_|private_)?token|api_?key|client_secret|password)=[^\s&;\"'`<>]+",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"(authorization[\"']?\s*[:=]\s*b?[\"']?)"
    r"(?:(bearer\s+|basic\s+|token\s+|apikey\s+|negotiate\s+|ntlm\s+)[^\s\"'`<>]+|((?:digest|aws4-hmac-sha256)\s+)\S.*"
    r"|[^\s\"'`<>]{8,})",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(\b(?:x-(?:[a-z]{1,20}-){0,3}(?:token|key)|api-key|private-token|job-token|deploy-token)[\"']?\s*[:=]\s*b?[\"']?)"
    r"[^\s\"'`<>]+",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(bearer|basic|token)(\s+[\"'`<]?)([^\s\"'`<>]{4,})", re.IGNORECASE)
_ORDINARY = re.compile(
    r"(?:tokens?|auth(?:entication|ori[sz]ation)?|credentials?|schemes?)[.,;:!?)]*|realm=.*", re.IGNORECASE
)
_TOKEN = re.compile(
    r"\b(?:hf_|api_org_|gh[pousr]_)[A-Za-z0-9]{16,}|\bgithub_pat_[A-Za-z0-9_]{16,}|\bglpat-[A-Za-z0-9_.-]{16,}"
    r"|\bms-[0-9a-f]{8}-[0-9a-f-]{20,}|(?<=m_session_id=)[^\s;'\"]+"
)


def hidden(text: str) -> str:
    """Replace what may be a secret: in addresses user, password and query, and whatever looks like a token."""
    if "//" in text:
        text = _ADDRESS.sub(_without_secrets, text)
    if "@" in text:
        text = _PROXY.sub(f"{HIDDEN}@", text)
    text = _PARAMETER.sub(rf"\1={HIDDEN}", text)
    text = _AUTHORIZATION.sub(lambda found: f"{found[1]}{found[2] or found[3] or ''}{HIDDEN}", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _TOKEN.sub(HIDDEN, _SCHEME.sub(_after_scheme, text))
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value := value.strip()) >= _LEAST_LENGTH and value in text:
            text = text.replace(value, HIDDEN)
    return text


def _without_secrets(found: re.Match[str]) -> str:
    """Take user and password, which may hold any character, and the query out of an address from its `//` on."""
    address = found[0][2:]
    has_scheme = found.string[: found.start()].endswith(":")
    segment = _PATH.split(address, maxsplit=1)[0]
    user, colon, _ = segment.partition(":")
    end = -1
    if colon and "@" not in user and not _HOST.fullmatch(segment):
        end = address.rfind("@")
    elif has_scheme:
        end = segment.rfind("@")
    start, address = ("//", address) if end < 0 else (f"//{HIDDEN}@", address[end + 1 :])
    before, question, query = address.partition("?")
    if has_scheme and (said := query.rstrip(").,;:!")):
        query = HIDDEN + query[len(said) :]
    return start + before + question + query


def _after_scheme(found: re.Match[str]) -> str:
    """Hide a value after the word of a scheme, but for those of ordinary sentences."""
    scheme, space, value = found.groups()
    if scheme == "Bearer":
        is_secret = not _ORDINARY.fullmatch(value)
    else:
        is_secret = len(value) >= _LEAST_LENGTH and _is_mixed(value)
    return f"{scheme}{space}{HIDDEN}" if is_secret else found[0]


def _is_mixed(value: str) -> bool:
    """Tell whether a value has letters and digits, or capitals within: words of sentences rarely do."""
    has_small, has_capital = any(map(str.islower, value)), any(map(str.isupper, value[1:]))
    return (has_small + has_capital + any(map(str.isdigit, value))) > 1


def spoken(message: str) -> str:
    """Return a message of one line as it may be said: no secrets, nothing that steers a terminal."""
    return one_line(hidden(message))
