"""Processes that work with a trained model, seen from the client that starts them."""

from pathlib import Path

import pytest

from core.engine import after
from core.engine.after import AfterError, Chat, export
from core.study.after import (
    ExportReply,
    ExportRequest,
    Open,
    Piece,
    Progress,
    Said,
    Say,
    Turn,
    Weights,
    partial_of,
)

FAKE = Path(__file__).with_name("fake_after.py")


@pytest.fixture(autouse=True)
def fake_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after, "PROGRAM", FAKE)
    monkeypatch.setenv("FAKE_AFTER", "")


def _request(tmp_path: Path) -> ExportRequest:
    return ExportRequest(weights=Weights("/run"), output=str(tmp_path / "model"))


def test_an_export_tells_what_it_does_and_what_it_made(tmp_path: Path) -> None:
    told: list[Progress] = []
    reply = export(_request(tmp_path), told.append)
    assert isinstance(reply, ExportReply) and reply.output == str(tmp_path / "model")
    assert told == [Progress("merging", 1, 2)]


def test_a_failure_is_an_error_with_its_reason_and_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_AFTER", "fails")
    with pytest.raises(AfterError, match="cannot be found") as raised:
        export(_request(tmp_path))
    assert raised.value.usage and raised.value.kept == "/kept"


@pytest.mark.parametrize(
    ("how", "message"),
    [("dies", r"exit code 3.*Killed by something"), ("babbles", "what is no answer")],
)
def test_a_process_that_dies_or_babbles_is_an_error_with_its_last_words(
    how: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_AFTER", how)
    with pytest.raises(AfterError, match=message):
        export(_request(tmp_path))


def test_an_export_that_is_interrupted_leaves_nothing_even_if_it_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_AFTER", "hangs")
    monkeypatch.setattr(after, "GRACE_SECONDS", 0.2)

    def press_ctrl_c(progress: Progress) -> None:
        if progress.what == "writing":
            assert partial_of(tmp_path / "model").is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(_request(tmp_path), press_ctrl_c)
    assert list(tmp_path.iterdir()) == []


def _say(text: str) -> Say:
    return Say(talks={"tuned": (Turn("user", text),)})


def test_a_chat_answers_question_after_question() -> None:
    with Chat(Open(weights=Weights("/run"))) as chat:
        assert chat.ready.speakers == ("tuned", "base")
        for text in ("one", "two"):
            replies = list(chat.say(_say(text)))
            said = [r for r in replies if isinstance(r, Said)]
            assert said[0].text == f"first tuned heard 1: {text}"
            assert "".join(r.text for r in replies if isinstance(r, Piece)) == said[0].text


def test_a_question_that_is_refused_is_no_end_of_the_chat() -> None:
    with Chat(Open(weights=Weights("/run"))) as chat:
        with pytest.raises(AfterError, match="too long"):
            list(chat.say(_say("refuse")))
        assert chat.alive
        assert [r for r in chat.say(_say("again")) if isinstance(r, Said)]


def test_answers_that_nobody_waits_for_are_ended_and_read_away() -> None:
    with Chat(Open(weights=Weights("/run"))) as chat:
        answers = chat.say(_say("long"))
        assert isinstance(next(answers), Piece)
        answers.close()  # type: ignore[attr-defined]
        assert [r for r in chat.say(_say("next")) if isinstance(r, Said)]


def test_a_chat_whose_process_died_says_so() -> None:
    with Chat(Open(weights=Weights("/run"))) as chat:
        with pytest.raises(AfterError, match="exit code 1"):
            list(chat.say(_say("die")))
        assert not chat.alive
