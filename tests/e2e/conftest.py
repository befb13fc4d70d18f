"""What the end-to-end tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh place; whatever was started in it is ended afterwards."""
    env = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TUNEDECK_LEASE_DIR": str(tmp_path / "leases"),
        "TUNEDECK_STUDIES": str(tmp_path / "studies"),
        "HF_HUB_OFFLINE": "1",
    }
    made = Place(tmp_path, env)
    yield made
    for journal in tmp_path.rglob("journal.jsonl"):
        made.run("stop", str(journal.parent), timeout=240)
