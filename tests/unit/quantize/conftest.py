"""One child process that asks llama.cpp for recipes, for all these tests."""

from collections.abc import Iterator

import pytest

from owm.native.guard import Child


@pytest.fixture(scope="session")
def child() -> Iterator[Child]:
    """The process, which is ready when the first test asks it."""
    with Child() as process:
        yield process
