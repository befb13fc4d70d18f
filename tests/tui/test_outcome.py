"""What a study found: places, the dropped, the lost, coordinates and cost. (tui/outcome.py)"""

import math
from typing import Any

import pytest

from core.engine.judgement import examination
from core.study.events import (
    AnyEvent,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarted,
    TrialStarting,
)
from core.study.files import ProcessRecord
from tests.tui.fake import NOW
from tests.tui.search_fake import SPACE, searched, source_of
from tui.outcome import Outcome, Standing
from tui.snapshot import StudyView, study_view
from tui.source import Wanted


def view_of(log: list[AnyEvent], space: dict[str, Any] | None = None) -> StudyView:
    return study_view(source_of(log, space).feed.read(Wanted(results=True)), NOW)


def found_of(log: list[AnyEvent], space: dict[str, Any] | None = None) -> Outcome:
    found = view_of(log, space).outcome
    assert found is not None
    return found


def study(
    *trials: tuple[dict[str, Any], str, float | None], planned: int | None = None
) -> list[AnyEvent]:
    """A study whose trials ended as told: settings, ending, value."""
    log: list[AnyEvent] = [
        StudyCreated(
            t=1,
            version=3,
            name="s",
            tunedeck="0",
            rank_by="eval_loss",
            planned=planned or len(trials),
        )
    ]
    for n, (settings, ending, value) in enumerate(trials, 1):
        shim = ProcessRecord(pid=1, started=1, boot_id="b")
        log += [
            TrialAdded(t=1, trial=n, settings=settings, sampled=settings),
            TrialStarting(t=1, trial=n, attempt=1, device="cpu"),
            TrialStarted(t=1, trial=n, attempt=1, shim=shim),
            TrialEnded(
                t=2, trial=n, attempt=1, ending=ending, value=value, eval_loss=value, step=100,  # type: ignore[arg-type]
                total_steps=100, seconds=10,
            ),
        ]  # fmt: skip
    return log


def by_trial(found: Outcome) -> dict[int, Standing]:
    return {s.trial: s for s in found.standings}


def test_finishers_come_first_then_the_dropped_by_rung_then_the_lost_by_ending() -> None:
    found = found_of(searched())
    kinds = [s.kind for s in found.standings]
    assert kinds == sorted(kinds, key=("placed", "dropped", "out").index)
    dropped = [s for s in found.standings if s.kind == "dropped"]
    assert [s.share for s in dropped] == sorted((s.share for s in dropped), reverse=True)
    assert {s.share for s in dropped} == {0.1, 0.3}
    last_rung = [s.value for s in dropped if s.share == 0.1]
    assert last_rung == sorted(last_rung, key=lambda v: v or math.inf)
    assert [s.status for s in found.standings if s.kind == "out"] == ["diverged"] * 2 + ["oom"] * 2


def test_a_confirmed_trial_counts_by_its_mean_and_its_second_run_has_no_row() -> None:
    found = found_of(searched())
    best = found.best
    assert best is not None and (best.runs, best.place) == (2, 1)
    assert best.spread is not None and best.spread == pytest.approx(0.003 / math.sqrt(2))
    assert len(found.standings) == 27 and not {28, 29} & set(by_trial(found))
    assert found.cost.confirmations == 2


def test_the_gap_is_to_the_first_place() -> None:
    found = found_of(
        study(
            ({"learning_rate": 1e-4}, "completed", 2.0), ({"learning_rate": 3e-4}, "completed", 1.9)
        )
    )
    assert [(s.trial, s.gap) for s in found.standings] == [(2, None), (1, pytest.approx(0.1))]


def test_ties_are_counted_with_the_best_alone() -> None:
    values = (1.900, 1.9005, 1.901, 2.2, 2.201)
    found = found_of(
        study(*(({"learning_rate": 1e-4 * (i + 1)}, "completed", v) for i, v in enumerate(values)))
    )
    assert found.ties == 2
    assert [s.tied for s in found.standings] == [True] * 5
    assert found_of(study(({"learning_rate": 1e-4}, "completed", 2.0))).ties == 0


def test_the_cost_is_what_ran_of_what_was_planned() -> None:
    found = found_of(searched(confirmed=False))
    # 27 probes of 400 steps: 23 to a tenth, 7 of these to 30 %, 2 to the end; two diverged at 24 steps.
    assert found.cost.share == pytest.approx((2 * 1.0 + 5 * 0.3 + 16 * 0.1 + 2 * 0.06) / 27)
    assert found.cost.on_gpu
    nothing = found_of(study(planned=8)).cost
    assert (nothing.share, nothing.seconds) == (None, 0.0)


@pytest.mark.parametrize("ending", ["diverged", "failed", "oom"])
def test_where_nothing_completed_there_is_no_winner(ending: str) -> None:
    found = found_of(study(*(({"learning_rate": 10.0**-i}, ending, None) for i in range(1, 5))))
    assert found.best is None and found.ties == 0
    assert [s.kind for s in found.standings] == ["out"] * 4 and found.count(ending) == 4  # type: ignore[arg-type]


def test_a_value_that_is_not_finite_counts_as_none() -> None:
    found = found_of(
        study(
            ({"learning_rate": 1e-4}, "completed", math.nan),
            ({"learning_rate": 2e-4}, "completed", 2.0),
        )
    )
    lost = by_trial(found)[1]
    assert (lost.kind, lost.value, lost.rank) == ("out", None, None)
    assert "finite" in lost.reason


def test_where_high_is_good_the_highest_is_first() -> None:
    found = found_of(searched(direction="max"))
    assert found.direction == "max" and found.best is not None
    placed = [s.value for s in found.standings if s.kind == "placed"]
    assert placed == sorted(placed, key=lambda v: -(v or 0))
    assert all(s.gap is None or s.gap <= 0 for s in found.standings)


def test_a_parameter_that_a_trial_did_not_draw_has_no_place_for_it() -> None:
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}, "lora_rank": [8, 16]}
    log = study(
        ({"learning_rate": 1e-4, "lora_rank": 8}, "completed", 2.0),
        ({"learning_rate": 1e-4}, "completed", 2.1),
    )
    found = found_of(log, space)
    assert by_trial(found)[1].at == (0.5, 0.25)
    assert by_trial(found)[2].at == (0.5, None)


def test_trials_that_wait_at_a_rung_are_shown_apart_from_the_ranking() -> None:
    log = searched()[:-1]
    waiting = next(i for i, e in enumerate(log) if type(e).__name__ == "RungDecided")
    found = found_of(log[:waiting])
    assert found.best is None and len(found.open) == 23
    assert {s.status for s in found.open} == {"rung"} and all(s.value for s in found.open)


def test_the_outcome_is_kept_until_a_trial_comes_further() -> None:
    source = source_of(searched())
    first = study_view(source.feed.read(Wanted(results=True)), NOW)
    again = study_view(source.feed.read(Wanted(results=True)), NOW, first)
    assert again.outcome is first.outcome
    source.feed.tell(TrialAdded(t=NOW, trial=99, settings={"learning_rate": 1e-3}, source="user"))
    later = study_view(source.feed.read(Wanted(results=True)), NOW, again)
    assert later.outcome is not first.outcome
    assert study_view(source.feed.read(Wanted()), NOW, later).outcome is None


def test_thousands_of_trials_are_all_ranked() -> None:
    found = found_of(searched(2000))
    assert len(found.standings) == 2000 and found.best is not None
    assert all(0 <= (s.rank or 0) <= 1 for s in found.standings)


def test_the_doctor_sees_the_winner_at_the_edge_of_what_was_tried() -> None:
    rates = (1e-5, 3e-5, 1e-4, 3e-4)
    log = study(*(({"learning_rate": r}, "completed", 2 - i / 10) for i, r in enumerate(rates)))
    found = found_of(log, {"learning_rate": {"low": 1e-5, "high": 3e-4, "scale": "log"}})
    assert (
        found.findings.edge == "the best has the highest learning rate tried, 3e-4: widen to 1e-3?"
    )
    assert len(found.findings.warnings) == 1 and "0.1 worse" in found.findings.warnings[0]
    assert found.findings.warnings[0] not in found.findings.advice


def test_the_doctor_says_which_rates_are_safe_and_what_matters() -> None:
    findings = found_of(searched()).findings
    assert findings.diverged_rate == 2.18e-3 and findings.safe_rate == 1.1e-3
    assert findings.importances[0].name == "learning_rate" and findings.importances[0].clear
    assert any("1.1e-3" in text for text in findings.advice) and not findings.edge


def test_too_few_trials_tell_no_importance_and_it_is_said() -> None:
    findings = found_of(
        study(({"learning_rate": 1e-4}, "completed", 2.0)), {"learning_rate": [1e-4, 1e-3]}
    ).findings
    assert findings.importances == () and "too few" in findings.unknown
    assert "no parameter" in found_of(study(({}, "completed", 2.0)), {}).findings.unknown


def test_the_doctor_says_the_same_as_the_command_does() -> None:
    """A study that still runs: two diverged, others wait at the first rung or in the queue."""
    log = searched()[:-1]
    at_rung = log[: next(i for i, e in enumerate(log) if type(e).__name__ == "RungDecided")]
    for events in (log, at_rung, at_rung[: len(at_rung) // 2]):
        reading = source_of(events).feed.read(Wanted(results=True))
        told = examination(
            reading.trials, SPACE, reading.rank_by, reading.direction, reading.profile
        )
        findings = found_of(events).findings
        shares = [(i.name, i.share) for i in told.importances if i.share is not None]
        assert shares == [(w.name, w.share) for w in findings.importances if w.share is not None]
        assert findings.safe_rate == (told.band.high if told.band is not None else None)
        assert all(step.text in findings.advice + findings.warnings for step in told.next_steps)
    assert found_of(at_rung).findings.importances


def test_a_search_that_goes_on_is_not_said_to_have_diverged_altogether() -> None:
    log = study(*(({"learning_rate": 10.0**-i}, "diverged", None) for i in range(1, 5)))
    all_over = found_of(log).findings
    assert any("All 4 trials" in text for text in all_over.advice) and all_over.steps
    log.append(TrialAdded(t=3, trial=9, settings={"learning_rate": 1e-6}))
    goes_on = found_of(log).findings
    assert not any("All 4" in text for text in goes_on.advice) and not goes_on.steps


def test_what_the_doctor_proposes_is_kept_as_a_profile_says_it() -> None:
    rates = (1e-5, 3e-5, 1e-4, 3e-4)
    space = {"learning_rate": {"low": 1e-5, "high": 3e-4, "scale": "log"}}
    log = study(*(({"learning_rate": r}, "completed", 2 - i / 10) for i, r in enumerate(rates)))
    (step,) = found_of(log, space).findings.steps
    assert step.space == {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}
