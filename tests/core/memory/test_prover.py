"""The client of the dry run, with its real process and with ones that misbehave."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.memory import prover as module
from core.memory.forecast import Forecast, Lengths, Target
from core.memory.prover import ProofError, Prover
from core.profile import Profile, loads

GPU = Target(kind="cuda", total=24 * 2**30, free=24 * 2**30, capability=(8, 0))
LENGTHS = Lengths(64, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = {
        "model_type": "llama", "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def profile_of(model: Path | str, **settings: Any) -> Profile:
    text = f'[model]\nmodel_name_or_path = "{model}"\n[data]\ndataset = "demo"\n'
    return loads(text).with_changes({k.replace("__", "."): v for k, v in settings.items()})


@pytest.fixture(scope="module")
def prover() -> Iterator[Prover]:
    with Prover() as prover:
        yield prover


def test_a_profile_is_proven_in_a_process_of_its_own(prover: Prover, model: Path) -> None:
    forecast = prover.prove(profile_of(model), GPU, LENGTHS)
    assert forecast.tier == "proof"
    assert 0 < forecast.allocated <= forecast.needed
    assert sum(forecast.parts.values()) == forecast.allocated


def test_answers_come_in_order_and_one_refusal_stops_no_other(prover: Prover, model: Path) -> None:
    batches = (1, 4, 2)
    profiles = [profile_of(model, train__per_device_train_batch_size=n) for n in batches]
    profiles.insert(1, profile_of("/no/such/model"))
    answers = prover.prove_all(profiles, GPU, LENGTHS)
    assert isinstance(answers[1], ProofError)
    assert "there is no /no/such/model" in str(answers[1])
    sizes = [a.allocated for a in answers if isinstance(a, Forecast)]
    assert len(sizes) == 3
    assert sizes[0] < sizes[2] < sizes[1]


def test_rows_are_measured(prover: Prover) -> None:
    found = prover.lengths(profile_of("demo"))
    assert found.measured
    assert 0 < found.evaluation <= found.train


def test_a_process_that_was_killed_is_said_and_started_again(prover: Prover, model: Path) -> None:
    assert prover.prove(profile_of(model), GPU, LENGTHS)
    child = prover._workers[0]._child
    assert child is not None
    timer = threading.Timer(0.05, os.kill, (child.pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(ProofError, match="ended"):
        for _ in range(1000):
            prover.prove(profile_of(model), GPU, LENGTHS)
    timer.join()
    assert prover.prove(profile_of(model), GPU, LENGTHS)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of the given lines in the place of ours."""

    def put(text: str) -> None:
        file = tmp_path / "program.py"
        file.write_text(f"import os, sys, time\n{text}\n")
        monkeypatch.setattr(module, "_PROGRAM", file)

    return put


def test_last_words_are_passed_on(program: Any, model: Path) -> None:
    program("sys.stdin.readline(); sys.exit('no room for torch')")
    with Prover() as prover, pytest.raises(ProofError, match=r"exit code 1\): no room for torch"):
        prover.prove(profile_of(model), GPU, LENGTHS)


def test_what_takes_too_long_is_ended(program: Any, model: Path) -> None:
    program("time.sleep(60)")
    with Prover(time_limit=0.2) as prover:
        with pytest.raises(ProofError, match="took longer"):
            prover.prove(profile_of(model), GPU, LENGTHS)
        assert prover._workers[0]._child is None


def test_nonsense_is_told_from_an_answer(program: Any, model: Path) -> None:
    program("print('hello', flush=True); time.sleep(60)")
    with Prover() as prover, pytest.raises(ProofError, match="no answer"):
        prover.prove(profile_of(model), GPU, LENGTHS)


def test_an_answer_without_an_end_does_not_fill_the_memory(program: Any, model: Path) -> None:
    program("while True: sys.stdout.write('x' * 65536)")
    with Prover() as prover, pytest.raises(ProofError, match="without an end"):
        prover.prove(profile_of(model), GPU, LENGTHS)


def test_closing_while_a_process_is_being_started_ends_it(
    program: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("time.sleep(60)")
    prover = Prover()
    started: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen

    def popen(*arguments: Any, **named: Any) -> Any:
        prover._workers[0]._closed = True
        started.append(begin(*arguments, **named))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(ProofError, match="has been closed"):
        prover.prove(profile_of(model), GPU, LENGTHS)
    assert started[0].returncode is not None


def test_closing_does_not_wait_for_a_proof(program: Any, model: Path) -> None:
    program("time.sleep(60)")
    prover = Prover()
    failed: list[str] = []

    def ask() -> None:
        try:
            prover.prove(profile_of(model), GPU, LENGTHS)
        except ProofError as error:
            failed.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    while prover._workers[0]._child is None:
        time.sleep(0.01)
    prover.close()
    asking.join(240)
    assert failed == ["the dry run has been closed"]
    with pytest.raises(ProofError, match="has been closed"):
        prover.prove(profile_of(model), GPU, LENGTHS)


def test_a_process_ends_when_its_input_does(prover: Prover, model: Path) -> None:
    with Prover() as other:
        other.start()
        child = other._workers[0]._child
        assert child is not None and child.stdin is not None
        child.stdin.close()
        assert child.wait(timeout=240) == 0


def test_it_needs_a_process() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Prover(0)


def test_a_run_of_several_gpus_is_not_simulated_and_the_reason_is_told(
    prover: Prover, model: Path
) -> None:
    shared = profile_of(model, gpus_per_trial=2)
    with pytest.raises(ProofError, match="shared by several GPUs, which is not simulated"):
        prover.prove(shared, GPU, LENGTHS)
    answers = prover.prove_all([shared, profile_of(model)], GPU, LENGTHS)
    assert [type(answer) for answer in answers] == [ProofError, Forecast]
