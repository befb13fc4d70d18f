"""Event files as TensorBoard itself reads them."""

import math
from pathlib import Path

from core.train.tensorboard import EventWriter


def test_tensorboard_reads_back_every_scalar(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = EventWriter(tmp_path / "tb")
    writer.write(1, 100.5, {"train/loss": 2.5, "train/learning_rate": 1e-4})
    writer.write(300, 101.5, {"train/loss": math.nan})
    writer.write(301, 102.5, {"train/loss": 1e300})
    writer.close()
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [(e.step, e.wall_time) for e in losses] == [(1, 100.5), (300, 101.5), (301, 102.5)]
    assert losses[0].value == 2.5 and math.isnan(losses[1].value) and losses[2].value == math.inf
    assert math.isclose(events.Scalars("train/learning_rate")[0].value, 1e-4, rel_tol=1e-6)


def test_nothing_is_made_before_the_first_event(tmp_path: Path) -> None:
    EventWriter(tmp_path / "tb").close()
    assert not (tmp_path / "tb").exists()
