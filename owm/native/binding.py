"""llama.cpp's C API as the installed binding declares it, without the rest of its package.

`import llama_cpp` brings high-level classes, chat formats, Jinja and pydantic with it, which owm never uses and which
take longer to load than a small model. Here the package stands in `sys.modules` unexecuted, so that two of its modules
can be imported; whoever asks it for anything else makes it execute as ever.
"""

import importlib.util
import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

_PACKAGE = "llama_cpp"
# Should ggml abort all the same, no debugger is started in the user's name to look for where it was.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
_executing = threading.RLock()


class _Package(ModuleType):
    """The package before it is executed."""

    def __getattr__(self, name: str) -> Any:
        api = vars(sys.modules.get(f"{_PACKAGE}.{_PACKAGE}", self))
        if name in api and not name.startswith("_"):
            return api[name]  # what the package would take from there
        with _executing:
            if type(self) is _Package:
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                # From here on it looks up its names as any module does.
                self.__class__ = ModuleType  # type: ignore[assignment]
                self.__path__ = self.__spec__.submodule_search_locations or []
                try:
                    self.__spec__.loader.exec_module(self)
                except BaseException:
                    del self.__path__
                    self.__class__ = _Package
                    raise
        return getattr(self, name)


def _put_in_place() -> ModuleType | None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        return None  # the import below says so
    package = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    return package


_waiting = None if TYPE_CHECKING or _PACKAGE in sys.modules else _put_in_place()

# Not `from llama_cpp import …`, which asks the package for the name.
import llama_cpp._ggml as _ggml  # noqa: E402
import llama_cpp.llama_cpp as llama  # noqa: E402

if _waiting is not None:
    # Any other of its modules is looked for by the path: then the package is executed first, as it should be.
    del _waiting.__path__
    _waiting.__class__ = _Package

ggml: Any = _ggml.libggml

__all__ = ["ggml", "llama"]
