"""Preferences that are easy to learn: which of two words an answer is made of."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 prompts, each with a chosen and a rejected answer; lengths differ."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {
            "instruction": f"Say {n} {'please ' * (n % 4)}",
            "input": "",
            "chosen": "hello " * (1 + n % 5) + str(n),
            "rejected": "spider " * (1 + n % 3) + str(n % 7),
        }
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 prompts with an answer that is good or bad, more good ones than bad ones."""
    file = tmp_path_factory.mktemp("tags") / "tags.jsonl"
    rows = [
        {
            "instruction": f"Say {n} {'please ' * (n % 4)}",
            "input": "",
            "output": ("hello " if n % 3 else "spider ") * (1 + n % 5) + str(n),
            "kto_tag": bool(n % 3),
        }
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
