"""What all tests of the server share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import httpx
import pytest

if importlib.util.find_spec("fastapi") is None:
    collect_ignore_glob = ["test_*.py"]  # the extra `serve` is not installed
else:
    import fixtures
    from servers import Served, eventually

    folders, models, served, slow = fixtures.folders, fixtures.models, fixtures.served, fixtures.slow


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """A client of that server."""
    with served.client() as client:
        yield client
    eventually(served.idle, "a free slot at the end of the test")
