"""The adviser without its dry runs, which are tested where they are made, and once with them."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.engine.launch import PROGRAM
from core.engine.memory import advise as module
from core.engine.memory.advise import advise
from core.engine.memory.jobs import Job, Result, known_lengths, read_result, rows, shape
from core.memory.architecture import find_architecture
from core.memory.closed_form import estimate
from core.memory.forecast import MIB, Forecast, Lengths, Target
from core.memory.prover import ProofError
from core.profile import Profile, dumps, from_document
from core.study.files import write_record
from tests.core.engine.memory.findings import target

MEASURED = Lengths(64, 56, True)


class DryRuns:
    """Proves what the closed form says; counts what it was asked."""

    def __init__(self, processes: int = 1) -> None:
        self.measured = 0

    def __enter__(self) -> "DryRuns":
        return self

    def __exit__(self, *trouble: object) -> None:
        return

    def lengths(self, profile: Profile) -> Lengths:
        self.measured += 1
        return MEASURED

    def prove(self, profile: Profile, target: Target, lengths: Lengths) -> Forecast:
        made = estimate(profile, find_architecture(profile), target, lengths)
        return msgspec.structs.replace(made, tier="proof", notes=())

    def prove_all(
        self, profiles: Sequence[Profile], target: Target, lengths: Lengths
    ) -> list[Forecast | ProofError]:
        return [self.prove(profile, target, lengths) for profile in profiles]


class Unreadable(DryRuns):
    def lengths(self, profile: Profile) -> Lengths:
        raise ProofError("row 2 of rows.jsonl has no output")


@pytest.fixture(autouse=True)
def dry_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Prover", DryRuns)


def profile(batch: int = 256, **tables: Any) -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "demo"},
            "method": {"finetuning_type": "full"},
            "data": {"dataset": "demo", "cutoff_len": 128},
            "train": {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "precision": "fp32"},
            **tables,
        }
    )  # fmt: skip


def job(folder: Path, about: Any, mib: int, made: Profile | None = None) -> Job:
    made = made or profile()
    gpu = target(free=mib / 1024, context=0)
    return Job(
        about=about, shape=shape(made, gpu), profile=dumps(made), target=gpu, guard=0.08,
        lengths=str(folder / "lengths.json"),
    )  # fmt: skip


def need(made: Profile | None = None) -> int:
    """What the profile's run needs, MiB."""
    return DryRuns().prove(made or profile(), target(), MEASURED).needed // MIB


def ask(folder: Path, about: Any, mib: int, made: Profile | None = None) -> Result:
    return advise(job(folder, about, mib, made))


def rows_of(result: Result) -> list[Any]:
    return [f.option.changes.get("per_device_train_batch_size") for f in result.fixes]


class TestStart:
    def test_what_fits_is_proven_and_nothing_else_is_looked_for(self, tmp_path: Path) -> None:
        result = ask(tmp_path, "start", need() + 1)
        assert result.forecast is not None
        assert (result.forecast.tier, result.fixes, result.problem) == ("proof", (), "")

    def test_what_does_not_fit_comes_with_its_fixes(self, tmp_path: Path) -> None:
        result = ask(tmp_path, "start", need() // 2)
        assert result.forecast is not None
        assert result.forecast.needed // MIB == need()
        assert len(result.fixes) == 3
        for found in result.fixes:
            assert found.option.proven
            assert found.option.needed == found.forecast.needed <= need() // 2 * MIB
        assert "ominate" in result.summary

    def test_no_fixes_are_looked_for_where_none_are_wanted(self, tmp_path: Path) -> None:
        asked = msgspec.structs.replace(job(tmp_path, "start", need() // 2), fixes=False)
        result = advise(asked)
        assert result.forecast is not None
        assert (result.fixes, result.problem) == ((), "")

    def test_the_rows_are_measured_once_for_all_trials(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask(tmp_path, "start", 100_000)
        assert known_lengths(tmp_path / "lengths.json", rows(profile())) == MEASURED
        monkeypatch.setattr(module, "Prover", Unreadable)
        assert ask(tmp_path, "start", 100_000).problem == ""

    def test_rows_that_cannot_be_measured_prove_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "Prover", Unreadable)
        result = ask(tmp_path, "start", 10)
        assert (result.problem, result.forecast) == ("row 2 of rows.jsonl has no output", None)

    def test_lengths_that_are_not_measured_prove_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DryRuns, "lengths", lambda self, profile: Lengths.bound(profile))
        assert ask(tmp_path, "start", 10).forecast is None

    def test_a_model_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        missing = profile(model={"model_name_or_path": str(tmp_path / "nothing")})
        assert str(tmp_path / "nothing") in ask(tmp_path, "start", 10, missing).problem


class TestFix:
    def test_after_a_crash_that_the_dry_run_shows_there_are_fixes(self, tmp_path: Path) -> None:
        result = ask(tmp_path, "fix", need() - 10)
        assert result.problem == ""
        assert result.fixes[0].option.numerics == "equivalent"

    def test_a_crash_that_the_dry_run_does_not_show_is_not_explained(self, tmp_path: Path) -> None:
        result = ask(tmp_path, "fix", 2 * need())
        assert result.fixes == ()
        assert result.problem

    def test_an_estimate_that_shows_the_crash_gives_fixes_that_say_what_they_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prove = DryRuns.prove

        def estimated(self: DryRuns, *given: Any) -> Forecast:
            return msgspec.structs.replace(prove(self, *given), tier="estimate", notes=("Unseen.",))

        monkeypatch.setattr(DryRuns, "prove", estimated)
        result = ask(tmp_path, "fix", need() // 2)
        assert result.summary.endswith("Estimates, not proven: Unseen.")
        assert result.fixes
        assert not any(f.option.proven for f in result.fixes)

    def test_the_batch_may_change_and_what_else_the_search_varies_stays(
        self, tmp_path: Path
    ) -> None:
        searched = profile(search={"space": {"gradient_checkpointing": [True, False]}})
        result = ask(tmp_path, "fix", need() // 2, searched)
        assert result.fixes
        assert not any("gradient_checkpointing" in f.option.changes for f in result.fixes)


class TestFit:
    def test_the_largest_batch_that_fits_is_found_and_the_effective_batch_held(
        self, tmp_path: Path
    ) -> None:
        train = {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 8}
        small = profile().with_changes(train)
        (found,) = ask(tmp_path, "fit", int(1.1 * need(small))).fixes
        assert found.option.changes == train

    def test_without_a_dry_run_it_is_an_estimate(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "Prover", Unreadable)
        result = ask(tmp_path, "fit", need())
        assert result.problem == ""
        assert not result.fixes[0].option.proven
        assert result.summary == "row 2 of rows.jsonl has no output"

    def test_where_no_batch_fits_it_says_so(self, tmp_path: Path) -> None:
        assert ask(tmp_path, "fit", 2).problem == "no batch fits Fake"


class TestProcess:
    def start(self, folder: Path, parent: int) -> "subprocess.Popen[bytes]":
        # Without a model the adviser answers before it needs a dry run.
        missing = profile(model={"model_name_or_path": str(folder / "nothing")})
        write_record(folder / "advice-job.json", job(folder, "fix", 10, missing))
        command = [sys.executable, "-P", str(PROGRAM), "_advise", str(folder / "advice-job.json")]
        return subprocess.Popen([*command, str(parent)])

    def test_it_leaves_its_result_beside_the_job(self, tmp_path: Path) -> None:
        assert self.start(tmp_path, os.getpid()).wait(240) == 0
        result = read_result(tmp_path)
        assert result is not None
        assert (result.about, bool(result.problem)) == ("fix", True)

    def test_it_does_nothing_for_a_daemon_that_is_gone(self, tmp_path: Path) -> None:
        assert self.start(tmp_path, 1).wait(240) == 1
        assert read_result(tmp_path) is None

    def test_it_ends_with_its_daemon(self, tmp_path: Path) -> None:
        code = (
            "import os, signal, sys, time\n"
            "from core.engine.memory import advise\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    advise._end_with(os.getppid()); print(os.getpid(), flush=True); time.sleep(600)\n"
            "sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", code], cwd=PROGRAM.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )  # fmt: skip
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().decode().strip()
        parent.communicate(b"\n", timeout=240)
        until = time.monotonic() + 120
        while child.exists() and "Z" not in (child / "stat").read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
