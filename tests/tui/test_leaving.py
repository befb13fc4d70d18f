"""Ctrl-C in a command: how it ends, and what is said of what goes on."""

import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.engine import client
from core.engine.recipes.handover import create_recipe
from core.recipe import loads
from core.study import store
from core.study.events import StudyChanged, StudyCreated, encode
from core.study.journal import seal
from tests.core.recipe_fake import THREE
from tui import cli, follow, leaving
from tui.commands import profiles, recipe, studies
from tui.leaving import first_done, goes_on, of_recipe, of_study


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts in turn."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(*_: object, **__: object) -> int:
    raise KeyboardInterrupt


def test_a_command_that_leaves_nothing_says_so_and_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profiles, "check", interrupted)
    assert cli.main(["check", "p.toml"]) == 130
    said = capsys.readouterr()
    assert said.err == "tunedeck: interrupted; nothing was left behind\n" and not said.out


def test_what_goes_on_is_said_by_who_knows_it_best(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trials(_: object) -> int:
        with goes_on(lambda: "all goes on"), goes_on(lambda: "the study goes on"):
            return interrupted()

    monkeypatch.setattr(studies, "trials", trials)
    assert cli.main(["trials", "s"]) == 130
    assert capsys.readouterr().err == "tunedeck: interrupted; the study goes on\n"


def test_a_line_of_progress_on_a_terminal_is_cleared_first() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    assert leaving.say(KeyboardInterrupt(), out) == 130
    assert out.getvalue().startswith("\r\x1b[Ktunedeck: interrupted")


def test_whoever_ended_with_the_reader_of_its_errors_ends_with_130_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiles, "check", interrupted)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as out:
        monkeypatch.setattr("sys.stderr", out)
        assert cli.main(["check", "p.toml"]) == 130
        out.flush()


def test_what_is_begun_is_brought_to_its_end_first() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), first_done():
        press()
        done.append("begun")
    assert done == ["begun"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), first_done():
        press()
        press()
        done.append("begun")
    assert not done


def test_what_fails_meanwhile_is_told_and_not_the_ctrl_c() -> None:
    with pytest.raises(store.StudyError), first_done():
        press()
        raise store.StudyError("no room")


def test_a_thread_and_what_ignores_ctrl_c_are_left_alone() -> None:
    done = []

    def work() -> None:
        with first_done():
            done.append("thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with first_done():
            press()
            done.append("ignored")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["thread", "ignored"]


def test_a_study_is_said_to_go_on_only_where_it_does(tmp_path: Path) -> None:
    folder = tmp_path / "my study"
    assert "if it began" in of_study(folder)
    folder.mkdir()
    journal = store.StudyFolder(folder).journal
    made = StudyCreated(t=1.0, version=1, name="s", tunedeck="0", rank_by="loss", planned=1)
    journal.write_bytes(seal(encode(made)))
    assert "goes on" in of_study(folder) and "'" in of_study(folder), "the path is quoted"
    with journal.open("ab") as out:
        out.write(seal(encode(StudyChanged(t=2.0, status="paused"))))
    assert "is paused" in of_study(folder)


def test_what_has_nobody_to_carry_it_on_is_not_said_to_go_on_by_itself(tmp_path: Path) -> None:
    study = tmp_path / "alone"
    study.mkdir()
    made = StudyCreated(t=1.0, version=1, name="s", tunedeck="0", rank_by="loss", planned=1)
    store.StudyFolder(study).journal.write_bytes(seal(encode(made)))
    assert "engine is gone: `tunedeck attach" in of_study(study)
    shop = create_recipe(loads(THREE), tmp_path / "shop")
    assert "the recipe waits: `tunedeck attach" in of_recipe(shop)


def test_whoever_leaves_before_the_first_look_is_told_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(client, "start_daemon", lambda folder: None)
    monkeypatch.setattr(follow, "follow", interrupted)
    assert cli.main(["demo", "--headless", "--study", str(tmp_path / "d")]) == 130
    said = capsys.readouterr().err
    assert "nothing was left behind" not in said and f"lists {tmp_path / 'd'} if it began" in said


def test_a_wish_that_nobody_waits_for_is_not_said_to_be_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "steer", interrupted)
    with pytest.raises(KeyboardInterrupt) as raised:
        recipe.control(tmp_path, "stop", as_json=False)
    assert "whether stop was heard, `tunedeck status" in raised.value.__notes__[0]
