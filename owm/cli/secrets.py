"""What must not be said: passwords and signatures in addresses, and tokens, taken out of what goes to stderr.

Nothing says them on purpose. This is for words of others (a library, a server, pip) that end in a message or traceback.
"""

import os
import re

from owm.cli.terminal import one_line

HIDDEN = "***"
_LEAST_LENGTH = 8  # of a value in the environment; shorter ones are words

_NAMES = re.compile(r"TOKEN|PASSW|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^\s/?#\"'`<>]+@")
_QUERY = re.compile(r"(?<=\?)[^\s\"'`<>)]+")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'`<>]+", re.IGNORECASE)
_TOKEN = re.compile(
    r"\b(?:hf_|api_org_)[A-Za-z0-9]{16,}|\bms-[0-9a-f]{8}-[0-9a-f-]{20,}"
    r"|(?<=Bearer )[!-&(-~]{4,}|(?<=Basic )[A-Za-z0-9+/=_-]{8,}|(?<=m_session_id=)[^\s;'\"]+"
)


def hidden(text: str) -> str:
    """Replace what may be a secret: in addresses user, password and query, and whatever looks like a token."""
    if "://" in text:
        text = _ADDRESS.sub(lambda found: _QUERY.sub(HIDDEN, _USER.sub(f"{HIDDEN}@", found[0])), text)
    text = _TOKEN.sub(HIDDEN, text)
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value := value.strip()) >= _LEAST_LENGTH and value in text:
            text = text.replace(value, HIDDEN)
    return text


def spoken(message: str) -> str:
    """Return a message of one line as it may be said: no secrets, nothing that steers a terminal."""
    return one_line(hidden(message))
