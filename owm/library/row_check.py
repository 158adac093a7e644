"""Whether the rows of a model file hold numbers: looked at while its bytes are read for something else."""

from bisect import bisect_left
from pathlib import Path

from owm.errors import MalformedFile, OwmError
from owm.formats.gguf import TENSOR_TYPES, Header, TensorEntry, read_header

_HINT = "these bytes are what was published; another quant, or one from elsewhere, may be sound"


class RowCheck:
    """Takes a file's bytes in order, and has ggml look at each tensor's quant blocks. One thread at a time."""

    def __init__(self, header: Header) -> None:
        """Begin with the header's first byte."""
        from owm.native.quants import type_ids

        self._header = header
        self._known = type_ids()
        self._index = 0  # of the tensor that is looked at
        self._position = 0  # in the file
        self._n_seen = 0  # bytes of the tensor
        self._begun = bytearray()  # of a block that goes on in the next bytes
        self.problem: OwmError | None = None

    def take(self, chunk: memoryview) -> None:
        """Look at the next bytes; after a problem nothing more is looked at."""
        begin, end = self._position, self._position + len(chunk)
        self._position = end
        tensors = self._header.tensors
        while self.problem is None and self._index < len(tensors):
            tensor = tensors[self._index]
            first = self._header.data_offset + tensor.offset
            if first >= end:
                return
            last = first + tensor.n_bytes
            self._take_of(tensor, chunk[max(first, begin) - begin : min(last, end) - begin])
            if last > end:
                return
            self._index += 1
            self._n_seen = 0
            self._begun.clear()

    def _take_of(self, tensor: TensorEntry, part: memoryview) -> None:
        if tensor.type_name not in self._known:
            return
        n_block = TENSOR_TYPES[tensor.type_id][2]
        if self._begun:
            n_missing = n_block - len(self._begun)
            self._begun += part[:n_missing]
            part = part[n_missing:]
            if len(self._begun) < n_block:
                return
            self._look(tensor, memoryview(bytes(self._begun)))
            self._begun.clear()
        n_whole = len(part) // n_block * n_block
        if n_whole and self.problem is None:
            self._look(tensor, part[:n_whole])
        self._begun += part[n_whole:]

    def _look(self, tensor: TensorEntry, blocks: memoryview) -> None:
        import numpy as np

        from owm.native.quants import is_valid

        raw = np.frombuffer(blocks, np.uint8)
        if not is_valid(raw, tensor.type_name):
            values, n_block = TENSOR_TYPES[tensor.type_id][1:]
            good = bisect_left(
                range(len(raw) // n_block), True, key=lambda n: not is_valid(raw[: (n + 1) * n_block], tensor.type_name)
            )
            row = (self._n_seen // n_block + good) * values // (tensor.shape[0] if tensor.shape else 1)
            name = ascii(tensor.name[:80])
            cause = (
                f"the tensor {name} ({tensor.type_name}) has values that are infinite or no numbers (NaN), in row {row}"
            )
            self.problem = MalformedFile(self._header.path, cause, hint=_HINT)
        self._n_seen += len(raw)


def check_of(path: Path) -> RowCheck | None:
    """Return what looks at a model file's rows, None where its header cannot be read, which others say."""
    try:
        return RowCheck(read_header(path))
    except OwmError:
        return None
