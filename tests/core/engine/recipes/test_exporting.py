"""Waiting for the process that makes a model of a step's weights."""

import sys
import time
from pathlib import Path

import pytest

from core.engine.recipes.exporting import HandoverError, export_step
from core.study.after import ExportReply, ExportRequest, Failure, Progress, decode_request, encode
from core.study.store import TrialFolder

ANSWER = ExportReply(
    output="o", kind="model", dtype="bf16", parameters=3, files=("model.safetensors",), bytes=6
)


def process(tmp_path: Path, body: str):
    """The command of a process that keeps its request in a file and then runs `body`."""
    script = tmp_path / "export.py"
    script.write_text(
        "import sys, time\nline = sys.stdin.buffer.readline()\n"
        f"open({str(tmp_path / 'request')!r}, 'wb').write(line)\n"
        f"def say(line): sys.stdout.buffer.write(line); sys.stdout.flush()\n{body}\n"
    )
    return lambda: [sys.executable, "-I", "-S", str(script)]


def say(message) -> str:
    return f"say({encode(message)!r})"


def test_the_weights_of_the_trial_are_asked_for_and_the_models_size_is_told(tmp_path: Path):
    body = f"print('a library speaks')\n{say(Progress('merging'))}\n{say(ANSWER)}"
    trial = TrialFolder(tmp_path / "trials" / "0003")
    command = process(tmp_path, body)
    assert export_step(trial, None, tmp_path / "model", lambda: True, command) == 6
    request = decode_request((tmp_path / "request").read_bytes(), ExportRequest)
    assert request.weights.folder == str(trial.output) and request.weights.trial == str(trial.path)
    assert request.output == str(tmp_path / "model") and not request.overwrite


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (say(Failure("the base model is not there")), "could not be exported: the base model is not there"),
        ("sys.stderr.write('one\\nKilled by nobody'); sys.exit(3)", r"ended \(exit code 3\): Killed by nobody"),
        ("sys.exit(0)", r"ended \(exit code 0\)"),
        ("import os; os.kill(os.getpid(), 9)", "was killed: most likely the machine's memory ran out"),
    ],
)  # fmt: skip
def test_why_there_is_no_model_is_told(tmp_path: Path, body, told):
    command = process(tmp_path, body)
    with pytest.raises(HandoverError, match=told) as raised:
        export_step(TrialFolder(tmp_path), None, tmp_path / "model", lambda: True, command)
    assert not raised.value.wanted


def test_an_export_that_is_not_wanted_any_more_ends(tmp_path: Path):
    command = process(tmp_path, "time.sleep(600)")
    began = time.monotonic()
    with pytest.raises(HandoverError) as raised:
        export_step(TrialFolder(tmp_path), None, tmp_path / "model", lambda: False, command)
    assert raised.value.wanted and time.monotonic() - began < 60


def test_a_process_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(HandoverError, match="cannot be started"):
        export_step(
            TrialFolder(tmp_path), None, tmp_path, lambda: True, lambda: [str(tmp_path / "no")]
        )
