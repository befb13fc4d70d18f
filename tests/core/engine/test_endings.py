import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.devices.process import boot_id
from core.engine.endings import Facts, classify, gather, last_checkpoint
from core.profile import from_document
from core.study.files import ExitRecord, ProcessRecord, RunInfo, WorkerReport, write_record
from core.study.metrics import MetricsWriter, Point
from core.study.state import Attempt, Trial
from core.study.store import TrialFolder

RUN = RunInfo(1, 50, 250, 10.0, 1, 1, 0, 1, 1, "fp32", "CPU", {}, 0.1)
CUDA_OOM = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free."


def trial(**more: Any) -> Trial:
    made = Trial(1, {}, status="running", attempts=(Attempt(1, started=100.0),))
    return msgspec.structs.replace(made, **more)


def exited(code: int | None = 0, number: int | None = None, **more: Any) -> ExitRecord:
    return ExitRecord(attempt=1, returncode=code, signal=number, started=100.0, ended=160.0, **more)


def reported(outcome: Any = "completed", phase: Any = "done", **more: Any) -> WorkerReport:
    return WorkerReport(attempt=1, outcome=outcome, phase=phase, **more)


def losses(*values: float) -> list[Point]:
    return [Point(t=101.0 + i, step=i, loss=v, mem_peak=100 * i) for i, v in enumerate(values, 1)]


def facts(**given: Any) -> Facts:
    known: dict[str, Any] = {
        "trial": trial(), "attempt": 1, "exit": exited(), "report": None, "run": RUN, "points": [], "log_tail": "",
        "limit_gib": None, "checkpoint": None,
    }  # fmt: skip
    return Facts(**{**known, **given})


def ending(**given: Any) -> tuple[str, str]:
    event = classify(facts(**given), 200.0).event
    return event.ending, event.reason


def asked(what: str, by: str, reason: str = "the reason") -> Trial:
    return trial(asked=what, asked_by=by, asked_reason=reason)


class TestCompleted:
    def test_a_report_of_completion_is_believed_whatever_the_exit_code(self) -> None:
        assert ending(report=reported(), exit=exited(139))[0] == "completed"
        assert ending(report=reported(), exit=None)[0] == "completed"

    def test_its_numbers_are_kept(self) -> None:
        points = [*losses(3.0, 2.0, 1.0), Point(t=110.0, step=3, eval_loss=1.25)]
        event = classify(facts(report=reported(peak_memory=777), points=points), 200.0).event
        assert (event.step, event.total_steps, event.eval_loss, event.peak_memory) == (
            3,
            50,
            1.25,
            777,
        )
        assert event.seconds == 60.0
        assert event.loss is not None
        assert 1.0 < event.loss < 3.0

    def test_a_run_whose_last_loss_is_no_number_is_diverged(self) -> None:
        assert ending(report=reported(), points=losses(2.0, math.nan)) == (
            "diverged",
            "its loss is not a number (NaN) at step 2",
        )

    def test_a_loss_that_was_no_number_and_recovered_is_no_divergence(self) -> None:
        assert ending(report=reported(), points=losses(2.0, math.nan, 1.0))[0] == "completed"

    def test_a_run_whose_evaluation_is_infinite_is_diverged(self) -> None:
        points = [*losses(2.0), Point(t=110.0, step=1, eval_loss=math.inf)]
        assert (
            ending(report=reported(), points=points)[1]
            == "its evaluation loss is infinite at step 1"
        )

    def test_what_the_guard_asked_too_late_is_diverged_all_the_same(self) -> None:
        assert ending(report=reported(), trial=asked("stop", "guard", "rose")) == (
            "diverged",
            "rose",
        )


class TestRung:
    at = reported("rung", "train", step=5, checkpoint="checkpoints/checkpoint-5")
    points = [  # noqa: RUF012
        *losses(3.0, 2.0, 1.0),
        Point(t=110.0, step=5, eval_loss=1.25, tokens=640),
    ]

    def test_a_trial_at_its_rung_waits_with_its_checkpoint_and_its_value(self) -> None:
        waits = trial(until=0.1)
        event = classify(
            facts(report=self.at, points=self.points, trial=waits, rank_by="eval_loss"), 200.0
        ).event
        assert (event.ending, event.step, event.value, event.tokens) == ("rung", 5, 1.25, 640)
        assert event.checkpoint == "checkpoints/checkpoint-5"
        assert event.reason == "waits at 10 % of its probe"

    def test_what_diverged_by_then_has_diverged(self) -> None:
        bad = [*losses(2.0, math.nan)]
        assert ending(report=self.at, points=bad)[0] == "diverged"
        assert ending(report=self.at, trial=asked("stop", "guard", "rose")) == ("diverged", "rose")

    def test_a_stop_is_heeded_there(self) -> None:
        assert ending(report=self.at, trial=asked("stop", "user", "by you")) == (
            "stopped",
            "by you",
        )

    def test_a_pause_of_the_study_needs_nothing_more(self) -> None:
        assert ending(report=self.at, trial=asked("pause", "study"))[0] == "rung"


class TestKeptCheckpoint:
    def test_what_a_finished_probe_kept_is_recorded(self) -> None:
        kept = reported(checkpoint="checkpoints/checkpoint-50")
        event = classify(facts(report=kept, checkpoint="checkpoints/checkpoint-40"), 200.0).event
        assert event.checkpoint == "checkpoints/checkpoint-50"

    def test_what_lies_there_besides_is_not(self) -> None:
        event = classify(facts(report=reported(), checkpoint="checkpoints/checkpoint-40"), 200.0)
        assert event.event.checkpoint is None


class TestRange:
    def test_a_range_test_that_ends_in_divergence_is_done(self) -> None:
        points = losses(2.0, math.nan)
        assert ending(report=reported(), trial=trial(kind="range"), points=points) == (
            "completed",
            "",
        )


def test_the_value_is_of_what_the_study_ranks_by() -> None:
    points = [*losses(3.0), Point(t=110.0, step=3, eval_loss=1.25, more={"eval_accuracy": 0.5})]
    for metric, value in (("loss", 3.0), ("eval_loss", 1.25), ("eval_accuracy", 0.5), ("x", None)):
        event = classify(facts(report=reported(), points=points, rank_by=metric), 200.0).event
        assert event.value == (None if value is None else pytest.approx(value))


class TestAsked:
    def test_the_guards_stop_is_a_divergence_with_its_reason(self) -> None:
        assert ending(report=reported("stopped"), trial=asked("stop", "guard", "NaN")) == (
            "diverged",
            "NaN",
        )

    def test_a_users_stop_is_a_stop(self) -> None:
        assert ending(report=reported("stopped"), trial=asked("stop", "user")) == (
            "stopped",
            "the reason",
        )

    def test_a_worker_that_dies_of_the_request_to_stop_is_stopped(self) -> None:
        given = {"exit": exited(None, 15, requested="stop"), "trial": asked("stop", "user")}
        assert ending(**given)[0] == "stopped"

    def test_one_that_had_to_be_killed_is_stopped_and_it_says_so(self) -> None:
        given = {
            "exit": exited(None, 9, requested="kill"),
            "trial": asked("stop", "user", "by you"),
        }
        assert ending(**given) == ("stopped", "by you; it did not end by itself and was killed")

    def test_a_pause_keeps_the_checkpoint(self) -> None:
        report = reported("paused", "train", step=7, checkpoint="checkpoints/checkpoint-7")
        event = classify(facts(report=report, trial=asked("pause", "user")), 200.0).event
        assert (event.ending, event.checkpoint, event.step) == (
            "paused",
            "checkpoints/checkpoint-7",
            7,
        )

    def test_a_stop_that_nobody_here_asked_for_is_lost(self) -> None:
        result = ending(report=reported("stopped"), exit=exited(0, requested="stop"))
        assert result[0] == "lost"
        assert "from outside" in result[1]


class TestMemory:
    def test_a_worker_that_reports_it_is_out_of_memory(self) -> None:
        report = reported("failed", "train", error_type="torch.OutOfMemoryError", error=CUDA_OOM)
        outcome = classify(facts(report=report, exit=exited(1)), 200.0)
        assert outcome.event.ending == "oom"
        assert outcome.trained
        assert not outcome.evaluating
        assert "2 GiB" in outcome.event.reason

    def test_the_kernels_kill_is_told_by_its_own_count(self) -> None:
        killed = exited(None, 9, oom_kills_before=1, oom_kills_after=2)
        assert ending(exit=killed)[0] == "oom"
        other = exited(None, 9, oom_kills_before=1, oom_kills_after=1)
        assert ending(exit=other) == (
            "failed",
            "the worker was killed from outside of tunedeck (signal 9, SIGKILL)",
        )

    def test_memory_that_ran_out_before_the_first_step_is_told_apart(self) -> None:
        report = reported("failed", "load", error_type="torch.OutOfMemoryError", error=CUDA_OOM)
        assert not classify(facts(report=report, exit=exited(1), run=None), 200.0).trained

    def test_memory_that_ran_out_in_an_evaluation_is_told_apart(self) -> None:
        report = reported("failed", "eval", error_type="torch.OutOfMemoryError", error=CUDA_OOM)
        assert classify(facts(report=report, exit=exited(1)), 200.0).evaluating

    def test_a_limit_is_named(self) -> None:
        report = reported("failed", "train", error_type="MemoryError", error="")
        assert "memory limit of 2 GiB" in ending(report=report, exit=exited(1), limit_gib=2.0)[1]


class TestFailed:
    def test_wrong_input_keeps_the_workers_sentence(self) -> None:
        report = reported(
            "failed",
            "data",
            error_type="UsageError",
            error="row 3 has no field x",
            usage_error=True,
        )
        event = classify(facts(report=report, exit=exited(1)), 200.0).event
        assert (event.ending, event.reason, event.usage_error) == (
            "failed",
            "row 3 has no field x",
            True,
        )

    def test_an_exception_is_named_with_what_the_worker_was_doing(self) -> None:
        report = reported("failed", "load", error_type="builtins.KeyError", error="'lm_head'")
        assert (
            ending(report=report, exit=exited(1))[1]
            == "KeyError: 'lm_head' (while loading the model)"
        )

    def test_a_worker_that_could_not_be_started_says_why(self) -> None:
        assert ending(exit=exited(None, problem="no such file"), run=None) == (
            "failed",
            "no such file",
        )

    def test_a_crash_names_its_signal(self) -> None:
        assert (
            ending(exit=exited(None, 11))[1]
            == "the worker crashed (signal 11, SIGSEGV); its log may say more"
        )

    def test_without_a_report_the_logs_last_line_speaks(self) -> None:
        tail = "--- attempt 1\nTraceback\nValueError: bad\n\n"
        assert (
            ending(exit=exited(1), log_tail=tail)[1]
            == "the worker ended with code 1: ValueError: bad"
        )
        assert (
            ending(exit=exited(1), log_tail="--- attempt 1\n")[1] == "the worker ended with code 1"
        )

    @pytest.mark.parametrize(
        "given",
        [
            {"report": reported("failed", error_type="OSError", error="[Errno 28] No space left on device")},
            {"report": reported("failed", "save", error_type="RuntimeError", error="PytorchStreamWriter failed writing file")},
            {"exit": exited(None, problem="the worker cannot be started: No space left on device")},
            {"exit": exited(1), "log_tail": "OSError: [Errno 122] Disk quota exceeded"},
        ],
    )  # fmt: skip
    def test_a_full_disk_is_noticed(self, given: dict[str, Any]) -> None:
        assert classify(facts(**{"exit": exited(1), **given}), 200.0).disk_full

    def test_other_failures_are_no_full_disk(self) -> None:
        report = reported("failed", error_type="OSError", error="[Errno 13] Permission denied")
        assert not classify(facts(report=report, exit=exited(1)), 200.0).disk_full
        assert not classify(facts(report=reported()), 200.0).disk_full


class TestLost:
    def test_without_any_word_it_is_lost(self) -> None:
        assert ending(exit=None)[0] == "lost"

    def test_a_restart_of_the_machine_is_named(self) -> None:
        assert ending(exit=None, restarted=True) == ("lost", "the machine was restarted")

    def test_one_that_was_to_stop_anyway_is_stopped(self) -> None:
        assert ending(exit=None, trial=asked("stop", "user"))[0] == "stopped"

    def test_it_can_go_on_from_its_last_checkpoint(self) -> None:
        event = classify(facts(exit=None, checkpoint="checkpoints/checkpoint-40"), 200.0).event
        assert event.checkpoint == "checkpoints/checkpoint-40"

    def test_its_time_is_that_of_its_last_word(self) -> None:
        assert classify(facts(exit=None, points=losses(2.0, 1.5)), 200.0).event.seconds == 3.0


class TestGather:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> TrialFolder:
        return TrialFolder(tmp_path)

    def gathered(self, folder: TrialFolder, made: Trial | None = None) -> Facts:
        profile = from_document({"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}})
        return gather(folder, made or trial(), profile)

    def test_an_empty_folder_gives_no_facts(self, folder: TrialFolder) -> None:
        found = self.gathered(folder)
        assert (found.exit, found.report, found.run, found.points, found.log_tail) == (
            None,
            None,
            None,
            [],
            "",
        )

    def test_records_of_other_attempts_do_not_count(self, folder: TrialFolder) -> None:
        write_record(folder.exit, msgspec.structs.replace(exited(), attempt=2))
        write_record(folder.report, msgspec.structs.replace(reported(), attempt=2))
        write_record(folder.run, msgspec.structs.replace(RUN, attempt=2))
        found = self.gathered(folder)
        assert (found.exit, found.report, found.run) == (None, None, None)

    def test_what_is_there_is_read(self, folder: TrialFolder) -> None:
        write_record(folder.exit, exited())
        write_record(folder.report, reported())
        folder.log.write_text("x" * 100_000 + "the end")
        writer = MetricsWriter(folder.metrics)
        writer.write(Point(t=1.0, step=1, loss=2.0))
        writer.close()
        found = self.gathered(folder)
        assert found.exit == exited()
        assert found.report == reported()
        assert len(found.points) == 1
        assert found.log_tail.endswith("the end")
        assert len(found.log_tail) < 20_000

    def test_an_attempt_of_another_boot_was_ended_by_the_restart(self, folder: TrialFolder) -> None:
        before = trial(attempts=(Attempt(1, shim=ProcessRecord(1, 2, "another boot")),))
        assert self.gathered(folder, before).restarted
        now = trial(attempts=(Attempt(1, shim=ProcessRecord(1, 2, boot_id())),))
        assert not self.gathered(folder, now).restarted

    def test_the_newest_whole_checkpoint_is_found(self, folder: TrialFolder) -> None:
        assert last_checkpoint(folder) is None
        for name, whole in (
            ("checkpoint-9", True),
            ("checkpoint-100", True),
            ("checkpoint-200", False),
            ("checkpoint-300", True),
            ("other", True),
        ):
            (folder.checkpoints / name).mkdir(parents=True)
            if whole:
                (folder.checkpoints / name / "trainer_state.json").write_text("{}")
        # The machine went down before the disk had it.
        (folder.checkpoints / "checkpoint-300" / "trainer_state.json").write_text("")
        assert last_checkpoint(folder) == "checkpoints/checkpoint-100"
