from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.search.lr_range import RangeReading, read

RECORDED = Path(__file__).resolve().parents[2] / "data" / "lr_range"
"""Range tests of the demo's model: updates of 8 rows (batch1: 1, small: 2)."""


def recorded(name: str) -> RangeReading:
    points = json.loads((RECORDED / f"demo-{name}.json").read_text())
    return read([(rate, loss) for rate, loss in points])


def curve(
    noise: float = 0.0, seed: int = 0, good: float = 3e-4, lost: float = 3e-2, count: int = 100
) -> list[tuple[float, float]]:
    """Rates from 1e-7 to 1; the loss falls from 2.6 to 2 around `good` and explodes at `lost`."""
    source = random.Random(seed)
    loss, points = 2.6, []
    for i in range(count):
        rate = 1e-7 * 1e7 ** (i / (count - 1))
        loss -= (loss - 2.0) * min(0.3, 0.1 * rate / good)
        if rate > lost:
            loss = min(11.0, loss + 0.8 * rate / lost)
        points.append((rate, loss * math.exp(source.gauss(0, noise))))
    return points


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_a_clear_curve_gives_a_range_below_its_divergence(noise: float) -> None:
    for seed in range(10):
        found = read(curve(noise, seed))
        assert found.useful and found.low and found.high and found.start
        assert found.diverged_at is not None and 2e-2 < found.diverged_at < 6e-2
        assert found.steepest is not None and 5e-5 < found.steepest < 3e-3
        assert found.low <= found.start <= found.high <= found.diverged_at / 3.9
        assert 5e-6 < found.low < 5e-4 and found.high > 5e-4
        first, second = found.text.split("\n")
        assert first.startswith("The loss falls from ") and second.startswith("Suggested: ")


def test_the_suggestion_moves_with_the_curve() -> None:
    low, high = read(curve(good=1e-5, lost=1e-3)), read(curve(good=1e-3, lost=1e-1))
    assert low.start and high.start and 20 < high.start / low.start < 500


def test_a_loss_that_is_no_number_is_the_divergence() -> None:
    points = [(rate, loss if rate < 1e-2 else math.nan) for rate, loss in curve()]
    found = read(points)
    assert found.diverged_at == pytest.approx(1e-2, rel=0.2)
    assert found.high is not None and found.high <= 1e-2 / 4 * 1.2
    assert all(math.isfinite(loss) for loss in found.losses)


def test_a_test_that_never_diverges_says_so() -> None:
    found = read([p for p in curve() if p[0] < 1e-2])
    assert found.useful and found.diverged_at is None
    assert "not lost up to" in found.text


def test_a_flat_curve_suggests_nothing() -> None:
    source = random.Random(3)
    found = read([(10 ** (-7 + i / 25), 2.6 + source.gauss(0, 0.1)) for i in range(100)])
    assert not found.useful
    assert "does not fall" in found.text and "noise" in found.text


@pytest.mark.parametrize("loss", [0.0, 2.6, 1e300])
def test_a_loss_that_never_moves_suggests_nothing(loss: float) -> None:
    assert not read([(10 ** (-7 + i / 25), loss) for i in range(100)]).useful


@pytest.mark.parametrize("at", [5, 50, 70])
def test_a_lone_spike_changes_hardly_anything(at: int) -> None:
    """Point 70 lies where the loss is lowest, at a rate of 8e-3."""
    calm = read(curve())
    points = curve()
    points[at] = (points[at][0], 9.0)
    spiked = read(points)
    assert calm.start and spiked.start and 1 / 2 < spiked.start / calm.start < 2
    assert calm.diverged_at == spiked.diverged_at


def test_a_curve_of_noise_alone_is_seldom_read() -> None:
    read_anyway = 0
    for seed in range(100):
        source = random.Random(seed)
        points = [(10 ** (-7 + i / 15), 2.6 * math.exp(source.gauss(0, 0.4))) for i in range(100)]
        read_anyway += read(points).useful
    assert read_anyway <= 5


def test_a_curve_that_is_lost_at_once_says_to_start_lower() -> None:
    found = read([(10 ** (-2 + i / 30), 2.6 if i == 0 else 8.0 + i / 10) for i in range(60)])
    assert not found.useful
    assert "at once" in found.text and "lower rates" in found.text


def test_too_few_updates_are_not_read() -> None:
    found = read(curve()[:12])
    assert not found.useful and "only 12 updates" in found.text
    assert read([]).text.startswith("Nothing can be read")


def test_full_training_of_the_demo_is_read_around_its_good_rate() -> None:
    found = recorded("full")
    assert found.low and found.high and found.low < 1e-3 < found.high
    assert found.diverged_at is not None and 5e-3 < found.diverged_at < 5e-2


def test_its_adapter_bears_higher_rates() -> None:
    full, lora = recorded("full"), recorded("lora")
    assert full.start and lora.start and lora.start > 2 * full.start
    assert full.diverged_at and lora.diverged_at and lora.diverged_at > full.diverged_at


def test_noisy_single_rows_are_read_where_the_fall_is_clear() -> None:
    found = recorded("batch1")
    assert found.low and found.high and found.low < 1e-3 < found.high


def test_what_starts_too_high_is_seen_to_be_lost() -> None:
    found = recorded("high")
    assert not found.useful and found.diverged_at is not None and found.diverged_at < 0.05


def test_low_rates_of_small_batches_say_nothing() -> None:
    assert not recorded("small").useful


@given(st.lists(st.tuples(st.floats(1e-9, 1.0), st.floats(allow_nan=True, width=32)), max_size=60))
def test_any_points_are_read_without_error(points: list[tuple[float, float]]) -> None:
    found = read(sorted(points, key=lambda p: p[0]))
    assert found.text.count("\n") == 1
    if found.useful:
        assert found.low and found.high and found.start
        assert 0 < found.low <= found.start <= found.high
