"""The command line: exit codes, sentences instead of tracebacks, JSON for programs."""

import json
import os
from pathlib import Path

import pytest

from core.engine.messages import Reply, Request
from core.study.events import (
    JOURNAL_VERSION,
    AnyEvent,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    encode,
)
from core.study.journal import seal
from core.study.metrics import Point, encode_point
from tui.cli import main
from tui.commands.run import parse_changes

PROFILE = """
[profile]
name = "small"
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
[search]
strategy = "grid"
[search.space]
learning_rate = [1e-4, 1e-3]
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TUNEDECK_STUDIES", raising=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished study of two trials, one of which diverged."""
    folder = tmp_path / "studies" / "night"
    folder.mkdir(parents=True)
    (folder / "profile.toml").write_text(PROFILE)
    events: list[AnyEvent] = [
        StudyCreated(
            t=1.0, version=JOURNAL_VERSION, name="night", tunedeck="0", rank_by="eval_loss", planned=2
        ),
        TrialAdded(t=2.0, trial=1, settings={"learning_rate": 1e-4}),
        TrialAdded(t=2.0, trial=2, settings={"learning_rate": 1e-3}),
        TrialStarting(t=3.0, trial=1, attempt=1, device="cpu"),
        TrialEnded(
            t=9.0, trial=1, attempt=1, ending="completed", step=10, total_steps=10, loss=1.5,
            eval_loss=1.25, seconds=6.0, peak_memory=2**30,
        ),
        TrialStarting(t=9.0, trial=2, attempt=1, device="cpu"),
        TrialEnded(t=11.0, trial=2, attempt=1, ending="diverged", reason="loss is NaN at step 3", step=3),
        StudyChanged(t=12.0, status="finished", reason="best: trial 1"),
    ]  # fmt: skip
    (folder / "journal.jsonl").write_bytes(b"".join(seal(encode(e)) for e in events))
    metrics = folder / "trials" / "0001" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_bytes(encode_point(Point(t=5.0, step=10, loss=1.5)))
    return folder


def run(*arguments: str) -> int:
    """The exit code of the command, also where argparse ends it."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_wrong_use_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trian", "x.toml") == 2
    assert run("save", "night") == 2, "without -o"
    assert run("params", "no_such_thing_at_all") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_and_version_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert run("run", "--help") == 0
    assert "PROFILE" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["studies", "--help"])
def test_a_reader_that_left_is_no_trouble(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert run(command) == (1 if command == "studies" else 0)
        out.flush()


def test_a_full_disk_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert run("studies") == 1
        out.flush()
    assert "No space left" in capsys.readouterr().err


def test_a_missing_study_is_a_sentence_that_lists_what_there_is(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", "nihgt") == 1
    assert "night" in capsys.readouterr().err


def test_a_study_is_found_by_its_name(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "night") == 0
    out = capsys.readouterr().out
    assert "finished" in out
    assert "trial 1" in out


def test_a_winner_that_changed_nothing_is_the_profile_as_it_is(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [
        StudyCreated(t=1.0, version=1, name="alone", tunedeck="0", rank_by="loss", planned=1),
        TrialAdded(t=1.0, trial=1, settings={}),
        TrialStarting(t=2.0, trial=1, attempt=1, device="cpu"),
        TrialEnded(t=9.0, trial=1, attempt=1, ending="completed", step=10, loss=1.5),
        StudyChanged(t=12.0, status="finished", reason=""),
    ]
    (study / "journal.jsonl").write_bytes(b"".join(seal(encode(e)) for e in events))
    assert run("status", "night") == 0
    assert "trial 1: the profile as it is" in capsys.readouterr().out


def test_status_for_programs(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "night", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["best"] == 1
    assert content["trials"] == 2
    assert content["engine"] is False


def test_trials_say_why_they_ended(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trials", "night") == 0
    out = capsys.readouterr().out
    assert "loss is NaN at step 3" in out
    assert "1.2500" in out


def test_studies_are_listed_newest_first(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("studies", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["folder"] == str(study)


def test_without_studies_the_list_says_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("studies") == 0
    assert "tunedeck demo" in capsys.readouterr().out


def test_the_winner_is_saved_and_never_over_a_file(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("save", "night", "-o", "tuned.toml") == 0
    assert "learning_rate = 0.0001" in Path("tuned.toml").read_text()
    assert run("save", "night", "-o", "tuned.toml") == 1
    assert "--force" in capsys.readouterr().err
    assert run("save", "night", "--trial", "2", "-o", "tuned.toml", "--force") == 0
    assert "learning_rate = 0.001" in Path("tuned.toml").read_text()
    assert run("save", "night", "--trial", "9", "-o", "x.toml") == 1
    assert run("check", "tuned.toml") == 0


def test_a_place_that_cannot_be_written_is_named_without_the_temporary_file(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("save", "night", "-o", "/nonexistent/x.toml") == 1
    said = capsys.readouterr().err
    assert said == "tunedeck: /nonexistent/x.toml cannot be written: no such file or directory\n"


def test_best_names_the_winner(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("best", "night", "--json") == 0
    assert json.loads(capsys.readouterr().out)["number"] == 1


def test_stopping_a_study_at_rest_starts_nothing(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("stop", "night") == 0
    assert "finished already" in capsys.readouterr().out
    assert not (study / "daemon.json").exists()


def test_check_lists_everything_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.toml").write_text(
        PROFILE.replace("learning_rate = ", "learning_rat = ") + "[train]\nseed = -1\n"
    )
    assert run("check", "bad.toml") == 1
    err = capsys.readouterr().err
    assert "learning_rat" in err
    assert "train.seed" in err
    assert run("check", "bad.toml", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert {p["key"] for p in found["problems"]} == {"search.space.learning_rat", "train.seed"}


def test_check_takes_changes_as_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text(PROFILE)
    full = ("--set", "method.finetuning_type=full")
    assert run("check", "mine.toml", *full) == 0
    capsys.readouterr()
    assert run("check", "mine.toml", *full, "--set", "model.quantization_bit=4") == 1
    assert "model.quantization_bit" in capsys.readouterr().err
    assert run("check", "mine.toml", "--set", "train.learning_rat=1") == 2
    assert "learning_rate" in capsys.readouterr().err
    with_rate = ("recipe-domain", "--set", "step.task.train.num_train_epochs=7", "--json")
    assert run("check", *with_rate) == 0
    assert "7" in capsys.readouterr().out
    assert run("check", "recipe-domain", "--set", "nonsense") == 2


def test_check_says_what_a_plan_will_be(capsys: pytest.CaptureFixture[str]) -> None:
    head = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
    Path("few.toml").write_text(
        head + '[search]\nstrategy = "grid"\ntrials = 100\n[search.space]\nlora_rank = [8, 16]\n'
    )
    notice = "search.trials asks for 100, the grid has 2 combinations: the search ends after them"
    assert run("check", "few.toml") == 0
    assert notice in capsys.readouterr().out
    assert run("check", "few.toml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["notices"] == [notice]


@pytest.mark.parametrize(
    "content", [None, "not = [toml", "\xff\xfe", "[model]\nmodel_name_or_path = './absent'\n[data]\ndataset='demo'"]
)  # fmt: skip
def test_a_profile_that_cannot_be_used_is_a_sentence(
    content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("p.toml").write_bytes(content.encode("latin-1"))
    assert run("run", "p.toml", "--headless", "--study", "s") == 1
    err = capsys.readouterr().err
    assert "p.toml" in err
    assert "Traceback" not in err
    assert not Path("s").exists(), "nothing was made"


def test_a_missing_data_set_is_named_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("p.toml").write_text(PROFILE.replace('dataset = "demo"', 'dataset = "rows.jsonl"'))
    assert run("run", "p.toml", "--headless") == 1
    assert "rows.jsonl: there is no such file" in capsys.readouterr().err


def test_a_study_folder_that_is_taken_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.toml").write_text(PROFILE)
    assert run("run", "p.toml", "--headless", "--study", str(study)) == 1
    assert "attach" in capsys.readouterr().err


def test_set_reads_values_as_the_profile_would() -> None:
    assert parse_changes(
        ["train.learning_rate=3e-4", "lora_rank=16", "search.space.learning_rate=[1e-5, 1e-4]"]
    ) == {
        "train.learning_rate": 3e-4,
        "method.lora_rank": 16,
        "search.space.learning_rate": [1e-5, 1e-4],
    }


@pytest.mark.parametrize(
    "given", ["learning_rate", "train.learning_rate=fast", "train.learning_rat=1"]
)
def test_a_wrong_set_is_wrong_use(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text(PROFILE)
    assert run("run", "p.toml", "--headless", "--set", given) == 2
    assert "--set" in capsys.readouterr().err


def test_without_a_terminal_the_dashboard_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "terminal" in capsys.readouterr().err


def test_every_parameter_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    from core.catalogue import parameters

    for parameter in parameters():
        assert run("params", parameter.key) == 0
        said = capsys.readouterr().out
        assert parameter.key in said
        assert all(len(line) <= 80 for line in said.splitlines())


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("params", "--schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "tunedeck profile"


def test_gpus_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("gpus", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert bool(content["gpus"]) != bool(content["problem"])
    assert content["host"]["cores"] == os.cpu_count()


def test_a_study_of_a_newer_version_is_left_alone(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = StudyCreated(t=1.0, version=99, name="n", tunedeck="9", rank_by="loss", planned=1)
    (study / "journal.jsonl").write_bytes(seal(encode(newer)))
    assert run("status", "night") == 1
    assert "newer version" in capsys.readouterr().err
    assert run("studies") == 0
    assert "unreadable" in capsys.readouterr().out


def test_a_completed_trial_is_not_tried_again_by_a_slip(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("retry", "night", "1") == 1
    assert "--force" in capsys.readouterr().err
    assert not (study / "daemon.json").exists(), "no engine was started for it"


def test_to_pause_what_is_paused_is_no_failure_whether_its_engine_is_there_or_not(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (study / "journal.jsonl").open("ab") as out:
        out.write(seal(encode(StudyChanged(t=20.0, status="paused"))))
    for alive in (True, False):
        monkeypatch.setattr("tui.commands.control.daemon_alive", lambda _, alive=alive: alive)
        assert run("pause", "night") == 0
        assert "paused already" in capsys.readouterr().out


def test_a_paused_study_is_stopped_though_its_engine_is_gone(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (study / "journal.jsonl").open("ab") as out:
        out.write(seal(encode(StudyChanged(t=20.0, status="paused"))))
    sent: list[Request] = []

    def send(folder: Path, request: Request) -> Reply:
        sent.append(request)
        return Reply(True, "the study is stopped")

    monkeypatch.setattr("tui.commands.control.send", send)
    assert run("stop", "night") == 0
    assert sent == [Request("stop")]


@pytest.mark.parametrize(("given", "fix"), [((), None), (("--fix", "2"), 2), (("--no-fix",), 0)])
def test_a_person_chooses_the_fix_of_a_retry(
    study: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], fix: int | None
) -> None:
    sent: list[Request] = []

    def send(folder: Path, request: Request) -> Reply:
        sent.append(request)
        return Reply(True, "trial 2 is tried again")

    monkeypatch.setattr("tui.commands.control.send", send)
    assert run("retry", "night", "2", *given) == 0
    assert sent == [Request("retry", 2, fix=fix)]


def test_a_fix_and_none_at_once_is_wrong_use(study: Path) -> None:
    assert run("retry", "night", "2", "--fix", "1", "--no-fix") == 2


def test_trials_tell_what_they_are_ranked_by_where_it_is_no_loss(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("trials", "night") == 0
    assert "accuracy" not in capsys.readouterr().out
    events = (
        StudyCreated(
            t=1.0, version=JOURNAL_VERSION, name="night", tunedeck="0", rank_by="eval_reward_accuracy",
            direction="max", planned=1,
        ),
        TrialAdded(t=2.0, trial=1, settings={"pref_beta": 0.1}),
        TrialStarting(t=3.0, trial=1, attempt=1, device="cpu"),
    )  # fmt: skip
    (study / "journal.jsonl").write_bytes(b"".join(seal(encode(e)) for e in events))
    logged = Point(t=5.0, step=10, loss=0.6, eval_loss=0.5, more={"eval_reward_accuracy": 0.8125})
    (study / "trials" / "0001" / "metrics.jsonl").write_bytes(encode_point(logged))
    assert run("trials", "night") == 0
    out = capsys.readouterr().out
    assert "eval_reward_accuracy" in out.splitlines()[0] and "0.8125" in out.splitlines()[1]
