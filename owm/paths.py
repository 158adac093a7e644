"""Where things lie on this machine. Nothing is read at import and nothing is created here."""

import os
from collections.abc import Mapping
from pathlib import Path


def owm_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the root of owm's own tree: `OWM_HOME`, else the platform's user data directory."""
    environ = os.environ if environ is None else environ
    if home := environ.get("OWM_HOME"):
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("owm", appauthor=False))


def hub_cache(environ: Mapping[str, str] | None = None) -> Path:
    """Return the Hugging Face cache, by the same rules as the Hub library (`HF_HUB_CACHE`, `HF_HOME`)."""
    environ = os.environ if environ is None else environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if cache := environ.get(name):
            return Path(os.path.expandvars(cache)).expanduser().absolute()
    if hf_home := environ.get("HF_HOME"):
        return Path(os.path.expandvars(hf_home)).expanduser().absolute() / "hub"
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "huggingface" / "hub"
