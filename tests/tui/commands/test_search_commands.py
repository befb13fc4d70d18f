"""`status`, `trials`, `best`, `doctor`, `promote` and `lr-range` over searches with rungs, ties and range tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.doctor import Examination, NextStep
from core.engine import client
from core.engine.messages import Reply, Request
from core.search.edges import Edge
from core.study.events import (
    JOURNAL_VERSION,
    AnyEvent,
    RungDecided,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStalled,
    TrialStarted,
    TrialStarting,
    encode,
)
from core.study.files import ProcessRecord, RangeTest, read_record, write_record
from core.study.journal import seal
from core.study.metrics import Point, encode_point
from core.study.store import StudyFolder
from tests.tui.fake import run_info
from tests.tui.fake_range import curve
from tui.cli import main
from tui.commands import lr_range
from tui.commands.doctor import examination_lines

PROFILE = """
[profile]
name = "small"
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
val_size = 0.1
[train]
max_steps = 400
[search]
strategy = "random"
[search.space]
learning_rate = { low = 1e-5, high = 1e-3, scale = "log" }
"""
RATES = {1: 2e-5, 2: 8e-5, 3: 9e-4, 4: 9.8e-4, 5: 3e-5, 6: 5e-5}
CHOICE = "random: as the profile says; halving: 6 trials are compared at 10 % of the probe"


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TUNEDECK_STUDIES", raising=False)


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def write(folder: Path, *events: AnyEvent) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "journal.jsonl").open("ab") as out:
        for event in events:
            out.write(seal(encode(event)))


def created(**more: Any) -> StudyCreated:
    return StudyCreated(
        **{
            "t": 1.0, "version": JOURNAL_VERSION, "name": "night", "tunedeck": "0", "rank_by": "eval_loss",
            "planned": 6, "strategy": "random", "stopping": "halving", "choice": CHOICE, **more,
        }
    )  # fmt: skip


def rung(trial: int, value: float) -> list[AnyEvent]:
    return [
        TrialStarting(t=3.0, trial=trial, attempt=1, device="cpu"),
        TrialEnded(
            t=4.0, trial=trial, attempt=1, ending="rung", step=8, total_steps=80, value=value,
            eval_loss=value, loss=value, checkpoint="checkpoints/checkpoint-8",
        ),
    ]  # fmt: skip


def completed(trial: int, value: float) -> list[AnyEvent]:
    return [
        TrialStarting(t=5.0, trial=trial, attempt=2, device="cpu"),
        TrialEnded(
            t=9.0, trial=trial, attempt=2, ending="completed", step=80, total_steps=80, value=value,
            eval_loss=value, loss=value, seconds=30.0,
        ),
    ]  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished search by halving: the two highest rates won, and are tied."""
    folder = tmp_path / "studies" / "night"
    folder.mkdir(parents=True)
    (folder / "profile.toml").write_text(PROFILE)
    events: list[AnyEvent] = [created()]
    for number, rate in RATES.items():
        events.append(
            TrialAdded(
                t=2.0, trial=number, settings={"learning_rate": rate}, until=0.1, sampled={"learning_rate": rate}
            )
        )  # fmt: skip
    for number, value in ((1, 2.3), (2, 2.1), (3, 1.9), (4, 1.91), (5, 2.25), (6, 2.2)):
        events += rung(number, value)
    dropped = dict.fromkeys((1, 5, 6), "2.2 or more, where the last one kept has 2.1")
    kept = dict.fromkeys((2, 3, 4), 1.0)
    events.append(RungDecided(t=4.5, rung=1, at=0.1, kept=kept, dropped=dropped))
    events += [*completed(2, 1.95), *completed(3, 1.8), *completed(4, 1.7995)]
    events.append(StudyChanged(t=10.0, status="finished"))
    write(folder, *events)
    return folder


def test_status_tells_how_it_was_searched_and_what_was_decided(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", "night") == 0
    out = capsys.readouterr().out
    assert f"search   {CHOICE}" in out
    assert "rung 1 at 10 %: 3 of 6 go on" in out and "3 dropped at a rung" in out
    assert run("status", "night", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["stopping"] == "halving" and content["dropped"] == [1, 5, 6]
    assert content["rungs"][0]["kept"] == [2, 3, 4] and "5" in content["rungs"][0]["dropped"]
    assert content["summary"].startswith("best: trial 3")


def test_trials_say_where_they_were_dropped_and_which_stalls(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shim = ProcessRecord(1, 1, "b")
    write(
        study,
        TrialAdded(t=11.0, trial=7, settings={"learning_rate": 1e-4}),
        TrialStarting(t=11.0, trial=7, attempt=1, device="cpu"),
        TrialStarted(t=11.0, trial=7, attempt=1, shim=shim),
        TrialStalled(t=12.0, trial=7, attempt=1, text="nothing logged for 9 min"),
    )
    assert run("trials", "night") == 0
    out = capsys.readouterr().out
    assert "where the last one kept has 2.1" in out and "pruned" in out
    assert "stalled" in out and "nothing logged for 9 min" in out
    assert run("trials", "night", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[2]["place"] == 1 and listed[2]["tied"] and listed[2]["rungs"][0]["at"] == 0.1
    assert listed[0]["place"] is None and listed[0]["status"] == "pruned"


def test_a_running_trial_says_of_how_many_steps_and_one_at_its_rung_which_one_that_is(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[AnyEvent] = [
        TrialAdded(t=11.0, trial=7, settings={"learning_rate": 1e-4}),
        TrialStarting(t=11.0, trial=7, attempt=1, device="cpu"),
        TrialAdded(t=11.0, trial=8, settings={"learning_rate": 2e-4}, until=0.1),
    ]
    write(study, *starts, *rung(8, 2.0))
    log(study, 7, falling()[:12])
    write_record(StudyFolder(study).trial(7).run, run_info())
    assert run("trials", "night") == 0
    out = capsys.readouterr().out
    assert f"12/{run_info().total_steps}" in out
    assert "waits at rung 1 (10 % of the probe)" in out


def test_the_winner_is_named_with_its_ties_and_the_edge_it_lies_at(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("best", "night") == 0
    out = capsys.readouterr().out
    # Of two that are as good the lower rate is first.
    assert out.startswith("trial 3: learning_rate 9e-4")
    assert "tied with trial 4: the difference is within the noise" in out
    assert "dropped at 10 %" in out
    assert run("best", "night", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["number"] == 3 and content["ties"] == [4] and content["choice"] == CHOICE
    assert isinstance(content["edges"], list)


def test_a_winner_at_the_edge_asks_for_a_wider_space(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(study, *completed(4, 1.5))
    assert run("best", "night") == 0
    assert "highest learning_rate tried" in capsys.readouterr().out
    assert run("best", "night", "--json") == 0
    (edge,) = json.loads(capsys.readouterr().out)["edges"]
    assert edge["side"] == "high" and edge["widen_to"] > 9.8e-4


def test_confirmations_are_told_with_their_mean(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = {"learning_rate": 9e-4, "seed": 7}
    write(
        study,
        TrialAdded(t=11.0, trial=7, settings=again, source="confirm", parent=3),
        *completed(7, 1.82),
    )
    assert run("best", "night") == 0
    assert "mean of 2 seeds" in capsys.readouterr().out
    assert run("best", "night", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["confirmations"] == [7] and content["runs"] == 2


def test_without_a_winner_best_gives_the_reasons_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "studies" / "lost"
    added = [TrialAdded(t=2.0, trial=n, settings={"learning_rate": 1e-2 * n}) for n in (1, 2)]
    gone = [TrialEnded(t=4.0, trial=n, attempt=1, ending="diverged", reason="NaN") for n in (1, 2)]
    write(folder, created(), *added, *gone, StudyChanged(t=5.0, status="finished"))
    assert run("best", "lost") == 1
    assert "2 diverged at learning rates ≥ 0.01" in capsys.readouterr().err
    assert run("status", "lost") == 0
    assert "no trial completed: 2 diverged" in capsys.readouterr().out
    assert run("attach", "lost", "--headless") == 1
    assert "No trial completed: 2 diverged" in capsys.readouterr().out


def log(folder: Path, trial: int, points: list[Point]) -> None:
    target = folder / "trials" / f"{trial:04d}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "metrics.jsonl").write_bytes(b"".join(map(encode_point, points)))


def falling(count: int = 80, bottom: float = 1.8) -> list[Point]:
    return [
        Point(t=float(i), step=i, loss=bottom + 1.4 * 0.95**i, lr=1e-4, grad_norm=1.0)
        for i in range(1, count + 1)
    ]


def test_the_doctor_is_silent_about_healthy_runs_and_speaks_of_the_study(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(study, 3, falling())
    assert run("doctor", "night", "3") == 0
    assert "Nothing is wrong with trial 3" in capsys.readouterr().out
    assert run("doctor", "night", "9") == 1
    assert "no trial 9" in capsys.readouterr().err


def test_the_doctor_says_what_a_curve_shows_and_what_to_do(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = [Point(t=float(i), step=i, loss=0.0, lr=1e-4, grad_norm=0.0) for i in range(1, 81)]
    log(study, 3, flat)
    assert run("doctor", "night") == 0
    out = capsys.readouterr().out
    assert "Trial 3 (learning_rate 9e-4)" in out
    assert run("doctor", "night", "3", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["trials"][0]["finding"]["kind"] == "not_learning"
    assert content["study"] is None
    assert run("doctor", "night", "--json") == 0
    assert "next_steps" in json.loads(capsys.readouterr().out)["study"]


def test_a_step_that_an_edge_asks_for_is_said_once() -> None:
    text = "the best has the highest learning_rate tried (9e-4): widen to 2e-3?"
    edge = Edge("learning_rate", "high", 3, 9e-4, 2e-3, text)
    step = NextStep(f"T{text[1:]}", space={"learning_rate": [9e-4, 2e-3]})
    told = Examination(
        importances=(), band=None, edges=(edge,), remarks=("few trials",), next_steps=(step,)
    )
    assert examination_lines(told) == ["Few trials", f"Next: T{text[1:]}"]


def test_where_nothing_trained_the_doctor_says_what_became_of_the_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [
        TrialEnded(t=3.0, trial=n, attempt=1, ending="failed", reason="no such model")
        for n in (1, 2)
    ]
    added = [TrialAdded(t=2.0, trial=n, settings={"learning_rate": RATES[n]}) for n in (1, 2)]
    write(tmp_path / "studies" / "lost", created(), *added, *failed)
    (tmp_path / "studies" / "lost" / "profile.toml").write_text(PROFILE)
    assert run("doctor", "lost") == 0
    assert "2 failed (no such model)" in capsys.readouterr().out
    assert run("doctor", "lost", "1") == 0
    assert "1 failed (no such model)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "request_"),
    [
        (("3",), Request("promote", 3)),
        ((), Request("promote", 3)),
        (("3", "--continue"), Request("promote", 3, continues=True)),
        (("3", "--set", "learning_rate=2e-4"), Request("promote", 3, {"learning_rate": 2e-4})),
    ],
)
def test_promote_starts_anew_or_from_the_checkpoint(
    study: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], request_: Request
) -> None:
    sent: list[Request] = []

    def send(folder: Path, request: Request) -> Reply:
        sent.append(request)
        return Reply(True, "trial 7 is the full training")

    monkeypatch.setattr("tui.commands.control.send", send)
    assert run("promote", "night", *given) == 0
    assert sent == [request_]


def test_a_wrong_change_of_a_promotion_is_wrong_use(study: Path) -> None:
    assert run("promote", "night", "3", "--set", "learning_rat=2") == 2


# -- lr-range ---------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stands for the daemon: writes a range test that is over at once."""

    def arrange(count: int = 100, ending: Any = "completed", reason: str = "") -> None:
        def start(folder: Path, timeout: float = 15.0) -> None:
            write(
                folder,
                created(choice="a range test", planned=1, stopping="none"),
                TrialAdded(t=2.0, trial=1, settings={}, kind="range", source="user"),
                TrialStarting(t=3.0, trial=1, attempt=1, device="cpu"),
                TrialEnded(t=9.0, trial=1, attempt=1, ending=ending, step=count, reason=reason),
                StudyChanged(t=9.0, status="finished"),
            )
            points = [
                Point(t=1.0, step=i, loss=loss, lr=rate)
                for i, (rate, loss) in enumerate(curve()[:count], 1)
            ]
            log(folder, 1, points)

        monkeypatch.setattr(client, "start_daemon", start)

    Path("p.toml").write_text(PROFILE)
    return arrange


def test_a_range_test_draws_its_curve_and_suggests_a_range(
    engine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    engine()
    assert run("lr-range", "p.toml", "--ascii", "--study", "rates") == 0
    out = capsys.readouterr().out
    assert "V steepest" in out and "1e-5" in out and "Suggested:" in out
    assert "--set 'search.space.learning_rate={low=" in out and out.isascii()
    assert read_record(StudyFolder(Path("rates")).range_test, RangeTest) == RangeTest()


def test_its_range_is_written_into_a_profile_that_searches_it(
    engine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    engine()
    assert run("lr-range", "p.toml", "-o", "found.toml", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    written = Path("found.toml").read_text()
    assert content["written"] == "found.toml" and content["suggested"]["scale"] == "log"
    assert (
        f"low = {content['suggested']['low']}" in written.replace("e-05", "e-5")
        or "low =" in written
    )
    assert run("check", "found.toml") == 0
    assert run("lr-range", "p.toml", "-o", "found.toml") == 1
    assert "--force" in capsys.readouterr().err


def test_rates_and_updates_are_given(engine: Callable[..., None]) -> None:
    engine()
    given = ("--low", "1e-6", "--high", "0.1", "--steps", "60", "--study", "s")
    assert run("lr-range", "p.toml", *given) == 0
    assert read_record(StudyFolder(Path("s")).range_test, RangeTest) == RangeTest(1e-6, 0.1, 60)


@pytest.mark.parametrize(
    "given", [("--low", "1", "--high", "1e-3"), ("--steps", "2"), ("--low", "fast")]
)
def test_a_test_that_makes_no_sense_is_wrong_use_before_anything_starts(
    engine: Callable[..., None], given: tuple[str, ...]
) -> None:
    engine()
    assert run("lr-range", "p.toml", *given, "--study", "s") == 2
    assert not Path("s").exists()


def test_one_that_fails_says_why_and_writes_nothing(
    engine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(0, "failed", "the model has no layer to train")
    assert run("lr-range", "p.toml", "-o", "found.toml") == 1
    assert "the model has no layer to train" in capsys.readouterr().err
    assert not Path("found.toml").exists()


def test_one_that_suggests_nothing_writes_nothing(
    engine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(8)
    assert run("lr-range", "p.toml", "-o", "found.toml") == 1
    said = capsys.readouterr()
    assert "only 8 updates" in said.out.lower() and "is not written" in said.err


def test_leaving_a_test_leaves_it_running(
    engine: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine()

    def interrupted(folder: Path, out: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lr_range, "_wait", interrupted)
    assert run("lr-range", "p.toml", "--study", "s") == 130
    assert "tunedeck attach s" in capsys.readouterr().err


def test_a_finished_range_test_is_no_failure_to_those_who_attach(
    engine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    engine()
    assert run("lr-range", "p.toml", "--study", "s") == 0
    capsys.readouterr()
    assert run("attach", "s", "--headless") == 0
    assert "range test ended" in capsys.readouterr().out


def test_records_of_a_range_test_are_written_by_its_maker_alone(tmp_path: Path) -> None:
    write_record(tmp_path / "range.json", RangeTest(1e-6, 1.0, 50))
    assert read_record(StudyFolder(tmp_path).range_test, RangeTest) == RangeTest(1e-6, 1.0, 50)
