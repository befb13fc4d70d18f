"""What is said about rungs, and where trials come from."""

from typing import Any

import pytest

from core.study.events import RungDecided
from core.study.state import RungResult, Trial
from tui import rung_text


def trial(**more: Any) -> Trial:
    return Trial(**{"number": 7, "settings": {"learning_rate": 3e-4}, **more})


TEN = RungResult(0.1, 12, 1.9)


def test_a_decision_says_how_many_go_on_in_its_own_words_or_in_ours() -> None:
    kept, dropped = {1: 0.3, 2: 0.3}, {3: "2.1 against 1.9", 4: "2.2 against 1.9"}
    said = RungDecided(t=1, rung=1, at=0.1, kept=kept, dropped=dropped)
    assert rung_text.decision_text(said) == "rung 1 at 10 %: 2 of 4 go on"
    own = RungDecided(t=1, rung=1, at=0.1, kept=kept, text="rung 1: the first 2 of 4")
    assert rung_text.decision_text(own) == "rung 1: the first 2 of 4"
    assert rung_text.decision_lines(said)[1:] == [
        "trial 3 is dropped: 2.1 against 1.9",
        "trial 4 is dropped: 2.2 against 1.9",
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"status": "rung", "until": 0.1, "rungs": (TEN,)}, "waits at rung 1 (10 % of the probe)"),
        (
            {"status": "pruned", "until": 0.1, "rungs": (TEN,)},
            "dropped at rung 1 (10 % of the probe)",
        ),
        ({"status": "queued", "until": 0.1}, "is sent to 10 % of the probe"),
        (
            {"status": "running", "until": 0.3, "rungs": (TEN,)},
            "came past rung 1 (10 % of the probe), is sent to 30 % of the probe",
        ),
        (
            {"status": "running", "until": 1.0, "rungs": (TEN,)},
            "came past rung 1 (10 % of the probe), runs to the end of the probe",
        ),
        ({"status": "running"}, ""),
        ({"status": "completed", "rungs": (TEN,)}, ""),
        ({"status": "running", "kind": "full"}, ""),
    ],
)
def test_where_a_trial_stands(more: dict[str, Any], said: str) -> None:
    assert rung_text.where(trial(**more)) == said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"source": "portfolio"}, "known-good settings, tried first"),
        ({"source": "user"}, "you added it"),
        ({"source": "confirm", "parent": 4}, "trial 4 once more, with another seed"),
        ({"source": "promote", "parent": 4, "kind": "full"}, "promoted from trial 4"),
        (
            {"source": "promote", "parent": 4, "kind": "full", "continues": "trials/0004/checkpoints/checkpoint-9"},
            "promoted from trial 4, continued from its checkpoint",
        ),
    ],
)  # fmt: skip
def test_where_a_trial_comes_from(more: dict[str, Any], said: str) -> None:
    assert rung_text.source_text(trial(**more)) == said


def test_each_rung_is_told_with_what_was_measured_there() -> None:
    assert rung_text.rung_lines(trial(rungs=(TEN, RungResult(0.3, 36, None)))) == [
        ("rung 1", "1.9000 at 10 %, step 12"),
        ("rung 2", "no value at 30 %, step 36"),
    ]
    put_off = trial(rungs=(RungResult(0.06, 8, 1.9), TEN), total_steps=68)
    assert [text for _, text in rung_text.rung_lines(put_off)] == [
        "1.9000 at 6 %, put off to step 8 of 68 by the warm-up",
        "1.9000 at 10 %, put off to step 12 of 68 by the warm-up",
    ]
    in_time = trial(rungs=(TEN,), total_steps=112)
    assert rung_text.rung_lines(in_time) == [("rung 1", "1.9000 at 10 %, step 12")]
    dropped = trial(status="pruned", until=0.1, rungs=(TEN,))
    assert rung_text.where(dropped, brief=True) == "dropped at rung 1"
