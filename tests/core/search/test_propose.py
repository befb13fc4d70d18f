"""The process that proposes: one request in, one reply out, or a sentence on why not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.search.proposals import ProposeReply, ProposeRequest, Seen

ROOT = Path(__file__).resolve().parents[3]
PROFILE = """
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
[search.space]
learning_rate = { low = 1e-5, high = 1e-3, scale = "log" }
lr_scheduler_type = ["linear", "cosine"]
"""


def run(request: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tunedeck.py"), "_propose"],
        input=request,
        capture_output=True,
        timeout=120,
        cwd="/",
        env={**os.environ, **environment},
    )


def request(count: int = 2, **more: Any) -> bytes:
    kinds = ("linear", "cosine")
    seen = [
        Seen(
            sampled={"learning_rate": 1e-5 * 2**i, "lr_scheduler_type": kinds[i % 2]},
            value=2.0 - 0.1 * i,
            state="completed",
            share=1.0,
        )
        for i in range(6)
    ]
    return msgspec.json.encode(
        ProposeRequest(**{"profile": PROFILE, "trials": seen, "count": count, **more})
    )


def test_it_answers_with_points_of_the_space_whatever_its_hash_seed() -> None:
    replies = []
    for seed in ("1", "2"):
        ran = run(request(), PYTHONHASHSEED=seed)
        assert ran.returncode == 0, ran.stderr
        replies.append(msgspec.json.decode(ran.stdout, type=ProposeReply))
    assert replies[0] == replies[1]
    assert len(replies[0].points) == 2
    for point in replies[0].points:
        assert set(point) == {"learning_rate", "lr_scheduler_type"}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (b"", "no settings could be proposed"),
        (b"{}", "missing required field `profile`"),
        (b"[1, 2]", "Expected `object`"),
        (request(profile="[model]\n"), "model.model_name_or_path: is missing"),
        (request(profile="x = ["), "is not valid TOML"),
        (request(trials=[Seen(sampled={"no_such_thing": 1})]), "no_such_thing"),
    ],
)
def test_a_failure_is_a_sentence_and_a_code(asked: bytes, why: str) -> None:
    ran = run(asked)
    assert ran.returncode == 1
    assert ran.stdout == b""
    text = ran.stderr.decode()
    assert why in text
    assert text.count("\n") == 1
    assert "Traceback" not in text
