"""Studies whose folder is moved, made anew or changed from outside while their trials run."""

from pathlib import Path

from core.devices.process import marked
from core.engine.shim import MARKER
from core.study.store import StudyReader, TrialFolder

SLOW = {"steps": 4000, "delay": 0.02}


def mark_of(served) -> str:
    environment = Path(f"/proc/{served.trial().attempt.shim.pid}/environ").read_text()
    return next(e for e in environment.split("\0") if e.startswith(f"{MARKER}="))


def test_a_study_made_anew_in_the_same_folder_does_not_share_its_processes(study):
    served = study(SLOW, {})
    daemon = served.start()
    served.wait_step(1, 2)
    first = mark_of(served)
    daemon.kill()
    daemon.wait()
    marks = marked(MARKER, first.partition("=")[2])
    (served.folder / "journal.jsonl").unlink()
    (served.folder / "trials").rename(served.folder / "old")
    served.start()
    served.wait_status("running", 1)
    assert mark_of(served) != first
    assert served.ask("stop").ok
    served.wait_status("stopped", 1)
    assert len(marks) == 2, "a shim and its worker"
    assert marked(MARKER, first.partition("=")[2]) == marks, "the older trial goes on"


def test_trials_go_on_in_a_study_that_is_moved_and_are_found_there(study, waits):
    served = study(SLOW, {})
    served.start()
    served.wait_step(1, 2)
    old = served.folder
    served.folder = old.rename(old.with_name("moved"))
    served.wait_gone()
    assert StudyReader(served.folder).state.trials[1].status == "running"
    served.start()
    assert served.ask("stop", 1).ok
    trial = served.wait_status("stopped", 1)
    assert [a.ending for a in trial.attempts] == ["stopped"]
    assert TrialFolder(served.folder / "trials" / "0001").exit.exists()
    assert not old.exists()


def test_a_journal_that_something_else_put_in_place_is_not_written_to(study, waits):
    served = study(SLOW, {})
    daemon = served.start()
    served.wait_status("running", 1)
    journal = served.folder / "journal.jsonl"
    restored = journal.with_name("restored")
    restored.write_bytes(journal.read_bytes())
    restored.replace(journal)
    assert daemon.wait() == 0
    served.start()
    assert served.ask("stop", 1).ok
    assert len(served.wait_status("stopped", 1).attempts) == 1


def test_who_hears_of_the_end_finds_the_winner(study):
    served = study({"steps": 3}, {"learning_rate": [1e-4, 1e-3]})
    served.start()
    served.wait_status("finished")
    assert (served.folder / "tuned.toml").exists()
