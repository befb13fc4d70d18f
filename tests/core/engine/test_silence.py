from pathlib import Path

import pytest

from core.engine.silence import Silence, evaluation_updates
from core.study.files import RunInfo
from core.study.metrics import Point
from core.study.store import TrialFolder


def logs(silence: Silence, count: int, every: float = 1.0, first: int = 1, t: float = 1e9) -> None:
    for n in range(first, first + count):
        silence.heard(Point(t=t + n * every, step=n, loss=2.0))


def watch(
    silence: Silence, start: float, seconds: float, tick: float = 1.0
) -> list[tuple[float, str]]:
    """What is said, and after how many seconds, while somebody looks each `tick`."""
    said = []
    for n in range(int(seconds / tick) + 1):
        text = silence.look(start + n * tick)
        if text is not None:
            said.append((n * tick, text))
    return said


@pytest.fixture
def silence(tmp_path: Path) -> Silence:
    return Silence(TrialFolder(tmp_path))


def test_five_minutes_without_a_log_are_told_once_with_numbers(silence: Silence) -> None:
    logs(silence, 20)
    ((after, text),) = watch(silence, 100.0, 2000)
    assert 300 < after <= 302
    assert text == "nothing logged for 5 min, since step 20; it logged every 1 s before"


def test_slow_steps_are_given_ten_times_their_usual_time(silence: Silence) -> None:
    logs(silence, 20, every=60.0)
    ((after, _),) = watch(silence, 0.0, 2000)
    assert 600 < after <= 602


def test_the_end_of_the_silence_is_told_once(silence: Silence) -> None:
    logs(silence, 5)
    assert watch(silence, 0.0, 400)
    logs(silence, 1, first=6)
    assert watch(silence, 401.0, 100) == [(0.0, "")]
    logs(silence, 1, first=7)
    assert watch(silence, 502.0, 100) == []


def test_a_stall_that_an_earlier_daemon_saw_ends_with_the_next_log(tmp_path: Path) -> None:
    silence = Silence(TrialFolder(tmp_path), stalled=True)
    assert watch(silence, 0.0, 1000) == []
    logs(silence, 1)
    assert silence.look(1001.0) == ""


def test_a_trial_that_logs_is_never_stalled(silence: Silence) -> None:
    for n in range(1, 60):
        logs(silence, 1, first=n, every=60)
        assert watch(silence, n * 60.0, 59) == []


def test_an_evaluation_is_given_the_time_of_training_on_as_many_rows(silence: Silence) -> None:
    silence.evaluation = 500.0
    logs(silence, 20, every=2.0)
    ((after, _),) = watch(silence, 0.0, 3000)
    assert 1300 < after <= 1302


def test_an_evaluation_is_a_log_as_well(silence: Silence) -> None:
    logs(silence, 5)
    assert watch(silence, 0.0, 200) == []
    silence.heard(Point(t=1e9, step=5, eval_loss=2.0))
    assert watch(silence, 201.0, 290) == []


def test_a_checkpoint_that_is_being_written_is_a_sign_of_life(
    silence: Silence, tmp_path: Path
) -> None:
    logs(silence, 5)
    folder = tmp_path / "checkpoints" / "checkpoint-5"
    folder.mkdir(parents=True)
    said = []
    for n in range(1000):
        if n % 50 == 0 and n <= 600:
            (folder / "model.safetensors").write_bytes(b"x" * (n + 1))
        text = silence.look(float(n))
        said += [n] if text else []
    assert said and 880 < said[0] < 960


def test_loading_is_waited_for_longer_and_its_log_is_a_sign_of_life(
    silence: Silence, tmp_path: Path
) -> None:
    said = []
    for n in range(2500):
        if n % 100 == 0 and n <= 1000:
            (tmp_path / "log.txt").write_text(f"loading {n}")
        text = silence.look(float(n))
        said += [(n, text)] if text else []
    ((after, text),) = said
    assert 1880 < after <= 2010
    assert text.startswith("it has logged nothing since it started")


def test_the_machines_clock_may_be_set_meanwhile(silence: Silence) -> None:
    logs(silence, 10, t=1e9)
    logs(silence, 10, first=11, t=5e8)
    ((after, _),) = watch(silence, 0.0, 1000)
    assert 300 < after <= 302


def test_a_daemon_that_was_stopped_does_not_blame_the_trial(silence: Silence) -> None:
    logs(silence, 5)
    assert watch(silence, 0.0, 10) == []
    assert silence.look(5000.0) is None
    ((after, _),) = watch(silence, 5001.0, 1000)
    assert 280 < after < 300


def test_an_evaluation_counts_in_updates() -> None:
    run = RunInfo(1, 20, 100, 50.0, 400, 80, 0, 1, 1, "fp32", "CPU", {}, 0.1)
    assert evaluation_updates(run) == 10.0
    assert evaluation_updates(None) == 0.0
