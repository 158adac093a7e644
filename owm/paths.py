"""Where things lie on this machine. Nothing is read at import and nothing is created here."""

import os
from collections.abc import Mapping
from pathlib import Path


def owm_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the root of owm's own tree: `OWM_HOME`, else the platform's user data directory."""
    environ = os.environ if environ is None else environ
    if home := environ.get("OWM_HOME"):
        return _absolute(home)
    import platformdirs

    return Path(platformdirs.user_data_dir("owm", appauthor=False))


def config_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the user's settings and prompts lie: `OWM_HOME`, else the platform's user config directory."""
    environ = os.environ if environ is None else environ
    if home := environ.get("OWM_HOME"):
        return _absolute(home)
    import platformdirs

    return Path(platformdirs.user_config_dir("owm", appauthor=False))


def hub_cache(environ: Mapping[str, str] | None = None) -> Path:
    """Return the Hugging Face cache, by the same rules as the Hub library (`HF_HUB_CACHE`, `HF_HOME`)."""
    environ = os.environ if environ is None else environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if cache := environ.get(name):
            return _absolute(cache)
    if hf_home := environ.get("HF_HOME"):
        return _absolute(hf_home) / "hub"
    return _absolute(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def _absolute(text: str) -> Path:
    """Expand `~` and `$NAME`; what cannot be expanded stays, as in the Hub library."""
    return Path(os.path.expandvars(os.path.expanduser(text))).absolute()
