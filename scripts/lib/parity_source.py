"""Prints where the source of the installed llama-cpp-python's llama.cpp is, with the reference converter in it.

Fetched on the first run, into the place that scripts/reference builds in. OWM_REFERENCE_SOURCE=FOLDER names one made
elsewhere, which is then used as it is.
"""

import os
import shutil
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

if __name__ == "__main__":  # run by itself, with its own folder to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lib.building import fail, follow

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "reference"


def source() -> Path:
    """Fetch and unpack the source archive, once."""
    release = version("llama-cpp-python")
    folder = CACHE / f"llama_cpp_python-{release}"
    if folder.exists():
        return folder
    fetched = CACHE / "fetched"
    fetched.mkdir(parents=True, exist_ok=True)
    # Only this package from source: with :all: pip would compile cmake as well, to read the metadata.
    command = ["-m", "pip", "download", "--no-deps", "--no-binary=llama-cpp-python", f"--dest={fetched}"]
    log = CACHE / "fetch.log"
    follow([sys.executable, *command, f"llama-cpp-python=={release}"], log, "its metadata", 1, {})
    unpacked = CACHE / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(next(fetched.glob(f"llama_cpp_python-{release}.tar.gz"))) as archive:
        # Pythons before 3.11.4 cannot filter.
        archive.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    next(unpacked.iterdir()).rename(folder)
    unpacked.rmdir()
    return folder


def main() -> None:
    """Print the folder of llama.cpp's source."""
    elsewhere = os.environ.get("OWM_REFERENCE_SOURCE")
    tree = Path(elsewhere).resolve() if elsewhere else source() / "vendor" / "llama.cpp"
    if not (tree / "convert_hf_to_gguf.py").exists():
        fail(f"no convert_hf_to_gguf.py in {tree}", "unset $OWM_REFERENCE_SOURCE, and the source is fetched")
    print(tree)


if __name__ == "__main__":
    main()
