"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def plain_environment() -> Iterator[None]:
    """No GPU is picked beforehand, and what a test's own trial sets for its process does not reach the next test."""
    before = dict(os.environ)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    yield
    os.environ.clear()
    os.environ.update(before)
