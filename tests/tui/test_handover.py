"""What is said before a trial's settings are trained fully."""

from dataclasses import replace
from typing import Any

import pytest

from core.study.state import Trial
from tests.tui.fake import run_info
from tui import handover
from tui.curve import Curve
from tui.snapshot import TrialRow


def row(*, total: int = 120, curve: bool = True, **more: Any) -> TrialRow:
    """A probe of 120 of 1200 steps that took a minute."""
    given = {"settings": {"learning_rate": 3e-4}, "status": "completed", "seconds": 60.0, **more}
    found = Curve(step=120, run=run_info()) if curve else None
    return TrialRow(Trial(number=2, **given), found, 120, total, None, None, None, None, 1)


def test_the_cost_follows_from_the_probes_pace() -> None:
    assert handover.cost_text(row()) == "It takes 1200 steps, about 10m 00s."
    assert "as long as the profile says" in handover.cost_text(row(curve=False))


def test_a_short_probe_warns_of_its_rate_and_a_whole_one_does_not() -> None:
    assert handover.horizon_text(row()) == (
        "Its rate 3e-4 did well over 120 of 1200 steps; for all of them down to 1.5e-4 may end better."
    )
    assert handover.horizon_text(row(total=1200)) == ""
    assert handover.horizon_text(row(settings={"lora_rank": 8})) == ""


def test_a_trial_that_was_stopped_early_did_not_do_well_over_its_whole_probe() -> None:
    dropped = replace(row(status="pruned"), step=12)
    assert handover.horizon_text(dropped) == (
        "Its rate 3e-4 was tried for 12 of 1200 steps, not to the end of its probe."
    )


def test_what_starting_took_is_counted_once() -> None:
    """Ten of a minute's seconds trained, so that the other 1080 updates take 90 seconds more."""
    known = row()
    assert known.curve is not None
    quick = replace(known, curve=replace(known.curve, steps_per_s=12.0))
    assert handover.cost_text(quick) == "It takes 1200 steps, about 2m 30s."


@pytest.mark.parametrize(
    ("more", "can"),
    [
        ({"resume_from": "checkpoints/checkpoint-120"}, True),
        ({}, False),
        ({"resume_from": "checkpoints/checkpoint-12", "status": "pruned"}, False),
        ({"resume_from": "checkpoints/checkpoint-120", "kind": "full"}, False),
    ],
)
def test_only_a_probe_that_kept_its_last_checkpoint_can_be_continued(
    more: dict[str, Any], can: bool
) -> None:
    assert handover.can_continue(row(**more)) is can
