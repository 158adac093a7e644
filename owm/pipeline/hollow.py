"""A planned model as a file with nothing but its header, and a hole for the weights: what llama.cpp can look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from owm.errors import StoreError
from owm.pipeline.plan import Plan, make_plan


@contextmanager
def hollow_file(plan: Plan) -> Iterator[Path]:
    """Write the header of a plan, as of one whole file, to a temporary file that takes no room on disk.

    Raises:
        StoreError: there is no place for temporary files.
    """
    whole = plan.files[0] if len(plan.files) == 1 else make_plan(plan.metadata, plan.tensors).files[0]
    with TemporaryDirectory(prefix="owm-") as folder:
        path = Path(folder) / "header.gguf"
        try:
            with open(path, "wb") as file:
                file.write(whole.header)
                file.truncate(whole.n_bytes)
        except OSError as error:
            raise StoreError(
                f"cannot write the header to be checked to {folder}: {error.strerror}",
                hint="TMPDIR names another folder for temporary files",
            ) from error
        yield path
