"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# The same commit gives the same result; `--hypothesis-profile=wide` looks for what nobody has met yet.
# Neither depends on how busy the machine is: what Hypothesis calls too slow is measured in seconds.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", UNTIMED, derandomize=True)
settings.register_profile("wide", UNTIMED, max_examples=2000)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def plain_environment() -> Iterator[None]:
    """No GPU is picked beforehand, and what a test's own trial sets for its process does not reach the next test."""
    before = dict(os.environ)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    yield
    os.environ.clear()
    os.environ.update(before)
