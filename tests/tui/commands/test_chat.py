"""`tunedeck chat`: a conversation, through a pipe and in a terminal, with a model that is played."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.engine import after
from core.engine.after import AfterError
from core.study.after import ChatReply, Open, Piece, Progress, Ready, Said, Sampling, Say, Who
from tui.cli import main
from tui.commands import chat as chatting
from tui.commands.chat import Desk, questions

FAKE = Path(__file__).resolve().parents[2] / "core" / "engine" / "fake_after.py"


class FakeTalk:
    """Answers with a counted echo, in two pieces."""

    def __init__(self, *speakers: Who, fails: str = "") -> None:
        self.ready = Ready(
            name="base", device="CPU", dtype="fp32", speakers=speakers or ("tuned", "base")
        )
        self.asked: list[Say] = []
        self.hushed = 0
        self.alive = True
        self.fails = fails

    def say(self, request: Say) -> Iterator[ChatReply]:
        self.asked.append(request)
        if self.fails:
            raise AfterError(self.fails)
        yield Progress("loading the base model")
        for who in request.talks:
            yield Piece(who, f"{who} says ")
        for who, turns in request.talks.items():
            yield Piece(who, turns[-1].text)
            yield Said(who, f"{who} says {turns[-1].text}", 4, 2.0, "end")

    def hush(self) -> None:
        self.hushed += 1


def _desk(talk: FakeTalk, *, terminal: bool = False, width: int = 100) -> tuple[Desk, io.StringIO]:
    out = io.StringIO()
    desk = Desk(talk, Sampling(seed=1), out, terminal=terminal, width=width)  # type: ignore[arg-type]
    return desk, out


def test_into_a_pipe_go_answers_alone_a_line_for_a_question() -> None:
    talk = FakeTalk()
    desk, out = _desk(talk)
    desk.greet("run")
    assert desk.run(iter(["hello", "", "again"])) == 0
    assert out.getvalue() == "tuned says hello\ntuned says again\n"
    assert [t.text for t in talk.asked[1].talks["tuned"]] == ["hello", "tuned says hello", "again"]
    assert talk.asked[0].sampling.seed == 1


def test_a_new_conversation_forgets_and_a_system_text_comes_first() -> None:
    talk = FakeTalk()
    desk, _ = _desk(talk)
    desk.run(iter(["hello", "/new", "one", "/system Be kind.", "two", "/system", "three"]))
    said = [[(t.role, t.text) for t in request.talks["tuned"]] for request in talk.asked]
    assert said[1] == [("user", "one")]
    assert said[2] == [("system", "Be kind."), ("user", "two")]
    assert said[3] == [("user", "three")]


def test_compared_answers_stand_one_after_the_other_where_it_is_narrow() -> None:
    talk = FakeTalk()
    desk, out = _desk(talk, terminal=True, width=60)
    desk.run(iter(["/compare", "hi"]))
    shown = out.getvalue()
    assert shown.index("base:\nbase says hi") < shown.index("tuned:\ntuned says hi")
    assert [list(request.talks) for request in talk.asked] == [["base"], ["tuned"]]


def test_compared_answers_stand_side_by_side_where_it_is_wide() -> None:
    talk = FakeTalk()
    desk, out = _desk(talk, terminal=True, width=80)
    desk.run(iter(["/compare", "hi", "and more"]))
    lines = out.getvalue().splitlines()
    assert "base".ljust(41) + "tuned" in lines
    assert "base says hi".ljust(41) + "tuned says hi" in lines
    assert [t.text for t in talk.asked[1].talks["base"]] == ["hi", "base says hi", "and more"]
    assert any("4 tokens, 2.0/s" in line for line in lines)


def test_a_base_that_joins_later_hears_what_was_said_before() -> None:
    talk = FakeTalk()
    desk, _ = _desk(talk)
    desk.run(iter(["hi", "/compare", "more"]))
    base = next(request for request in talk.asked if "base" in request.talks)
    assert [t.text for t in base.talks["base"]] == ["hi", "tuned says hi", "more"]


def test_without_a_base_there_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    talk = FakeTalk("tuned")
    desk, _ = _desk(talk)
    desk.run(iter(["/compare", "hi"]))
    assert "--base-model" in capsys.readouterr().err
    assert [list(request.talks) for request in talk.asked] == [["tuned"]]


def test_help_and_quit(capsys: pytest.CaptureFixture[str]) -> None:
    talk = FakeTalk()
    desk, out = _desk(talk)
    desk.run(iter(["/help", "/quit", "never asked"]))
    assert "/compare" in out.getvalue() and talk.asked == []


def test_what_only_looks_like_a_command_is_asked() -> None:
    talk = FakeTalk()
    desk, _ = _desk(talk)
    desk.run(iter(["/etc/passwd is a file"]))
    assert talk.asked[0].talks["tuned"][-1].text == "/etc/passwd is a file"


def test_a_refused_question_is_told_and_the_next_one_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    talk = FakeTalk(fails="the conversation is too long")
    desk, _ = _desk(talk)
    assert desk.run(iter(["one", "two"])) == 1
    assert capsys.readouterr().err.count("too long") == 2 and len(talk.asked) == 2
    talk.alive = False
    desk.run(iter(["three", "four"]))
    assert len(talk.asked) == 3, "nobody is there to be asked"


def test_ctrl_c_during_an_answer_ends_the_answer_and_not_the_program() -> None:
    talk = FakeTalk()
    desk, out = _desk(talk)
    real = talk.say

    def say(request: Say) -> Iterator[ChatReply]:
        os.kill(os.getpid(), signal.SIGINT)
        yield from real(request)

    talk.say = say  # type: ignore[method-assign]
    assert desk.run(iter(["hi"])) == 0
    assert out.getvalue() == "tuned says hi\n"
    assert talk.hushed == 1


def test_control_characters_of_an_answer_do_nothing() -> None:
    talk = FakeTalk()
    desk, out = _desk(talk)
    desk.run(iter(["\x1b[2Jgone"]))
    assert "\x1b" not in out.getvalue()


def test_lines_may_go_on_after_a_backslash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\\\ntwo\nthree\\\n"))
    assert list(questions(False)) == ["one\ntwo", "three"]


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(after, "PROGRAM", FAKE)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_command_answers_what_a_pipe_says(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert main(["chat", str(run_folder), "--device", "cpu", "--system", "Be kind."]) == 0
    assert capsys.readouterr().out == "first tuned heard 2: hi\n"


def test_the_command_says_in_which_numbers_to_hold_the_model(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Open] = []

    def refuse(request: Open, *_: Any) -> Any:
        opened.append(request)
        raise AfterError("enough")

    monkeypatch.setattr(chatting, "Chat", refuse)
    assert main(["chat", str(run_folder), "--device", "cpu", "--dtype", "bf16"]) == 1
    assert opened[0].dtype == "bf16"


def test_the_client_of_a_chat_loads_no_torch(run_folder: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tui.commands.chat, tui.commands.after, "
        "tui.commands.evaluate; print([m for m in ('torch', 'transformers', 'peft', 'rouge_score') if m in sys.modules])"
    )
    root = Path(chatting.__file__).resolve().parents[2]
    ran: Any = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
