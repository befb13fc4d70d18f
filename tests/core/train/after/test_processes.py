"""The real processes: asked over their pipes, interrupted, and gone with whoever asked."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.engine.after import AfterError, Chat, export
from core.study.after import (
    ExportRequest,
    Open,
    Progress,
    Said,
    Sampling,
    Say,
    Turn,
    Weights,
)
from core.train.after.process import failure_of
from tests.core.train.conftest import Ran

Train = Callable[..., Ran]


def test_an_export_that_is_interrupted_leaves_nothing_half(trained: Train, tmp_path: Path) -> None:
    ran = trained()
    weights = Weights(str(ran.folder / "output"), str(ran.folder))
    request = ExportRequest(weights=weights, output=str(tmp_path / "model"))

    def press_ctrl_c(progress: Progress) -> None:
        if progress.what == "loading the base model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(request, press_ctrl_c)
    assert list(tmp_path.glob("model*")) == []


def test_a_process_that_cannot_do_it_says_why(tmp_path: Path) -> None:
    request = ExportRequest(weights=Weights(str(tmp_path)), output=str(tmp_path / "model"))
    with pytest.raises(AfterError, match="holds no weights") as raised:
        export(request)
    assert raised.value.usage


def test_a_chat_answers_and_falls_silent_when_it_is_told(trained: Train) -> None:
    ran = trained(train__max_steps=1)
    request = Open(weights=Weights(str(ran.folder / "output"), str(ran.folder)))
    with Chat(request) as chat:
        short = Say(
            talks={"tuned": (Turn("user", "Say 3"),)},
            sampling=Sampling(max_new_tokens=4, temperature=0.0),
        )
        said = [r for r in chat.say(short) if isinstance(r, Said)]
        assert said[0].tokens <= 4
        long = Say(
            talks={"tuned": (Turn("user", "Say 3"),)}, sampling=Sampling(max_new_tokens=200, seed=1)
        )
        replies = chat.say(long)
        first = next(replies)
        threading.Thread(target=chat.hush).start()
        ends = [r for r in [first, *replies] if isinstance(r, Said)]
        assert ends[0].tokens < 200
        again = [r for r in chat.say(short) if isinstance(r, Said)]
        assert again[0].text == said[0].text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/models/x"), "Permission denied: /models/x"),
        (OSError(28, "No space left on device"), "the disk is full: No space left on device"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)\nmore"),
            "the disk is full: I/O error: No space left on device (os error 28)",
        ),
    ],
)
def test_what_the_system_says_of_files_is_told_without_its_numbers(
    error: Exception, told: str
) -> None:
    assert failure_of(error).reason == told
