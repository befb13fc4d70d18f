"""How far a profile can go on a device."""

import pytest

from core.memory.forecast import GIB, Forecast, Lengths
from core.memory.limits import (
    COMMON_GPUS,
    LONGEST,
    MOST_BATCH,
    MOST_PROOFS,
    largest_batch,
    longest_sequence,
    smallest_gpu,
)
from core.profile import Profile
from tests.core.memory.fake_memory import LENGTHS, SHAPE, World, gpu, profile

GUARD = 0.05
ERRORS = pytest.mark.parametrize("error", [0.8, 0.97, 1.0, 1.03, 1.2])


def true_batch(world: World, asked: Profile, gib: float) -> int:
    def fits(size: int) -> bool:
        changed = asked.with_changes({"per_device_train_batch_size": size})
        return world.forecast(changed, LENGTHS).needed * (1 + GUARD) <= gib * GIB

    return max((size for size in range(1, 200) if fits(size)), default=0)


@pytest.mark.parametrize("gib", [10, 24, 30, 80, 200])
def test_the_largest_batch_is_the_closed_forms(gib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().install(monkeypatch)
    found = largest_batch(profile(), SHAPE, gpu(gib), LENGTHS, guard=GUARD)
    assert found.value == true_batch(world, profile(), gib)
    assert not found.proven
    assert not found.most


@ERRORS
@pytest.mark.parametrize("gib", [30, 80, 200])
def test_a_dry_run_corrects_the_closed_form(
    error: float, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(estimate_error=error).install(monkeypatch)
    found = largest_batch(profile(), SHAPE, gpu(gib), LENGTHS, world.prove, guard=GUARD)
    assert found.proven
    assert found.value == pytest.approx(true_batch(world, profile(), gib), abs=1)
    assert found.value <= true_batch(world, profile(), gib)
    assert len(world.proven) <= MOST_PROOFS


def test_no_batch_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().install(monkeypatch)
    assert largest_batch(profile(), SHAPE, gpu(5), LENGTHS, world.prove, guard=GUARD).value == 0
    assert world.proven == []


def test_a_bound_that_is_the_parameters_own_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    World(activations=0, logits=0).install(monkeypatch)
    batch = largest_batch(profile(), SHAPE, gpu(80), LENGTHS, guard=GUARD)
    assert (batch.value, batch.most) == (MOST_BATCH, True)
    rows = longest_sequence(profile(), SHAPE, gpu(80), LENGTHS, guard=GUARD)
    assert (rows.value, rows.most) == (LONGEST, True)


def test_the_longest_rows_do_not_depend_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    asked = profile(train={"per_device_train_batch_size": 1})
    long = longest_sequence(asked, SHAPE, gpu(80), LENGTHS, guard=GUARD)
    short = longest_sequence(asked, SHAPE, gpu(80), Lengths(100, 0, measured=True), guard=GUARD)
    assert long.value == short.value
    assert long.value % 64 == 0
    assert long.value > 2048


@ERRORS
def test_the_longest_rows_are_proven(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(estimate_error=error).install(monkeypatch)
    asked = profile(train={"per_device_train_batch_size": 2})

    def prove(profiles: list[Profile]) -> list[Forecast]:
        world.proven += profiles
        return [world.forecast(p, Lengths(LONGEST, LONGEST)) for p in profiles]

    found = longest_sequence(asked, SHAPE, gpu(40), LENGTHS, prove, guard=GUARD)  # type: ignore[arg-type]
    assert found.proven
    # 17.5 GiB stay, and 12 come for every 2048 tokens of two rows.
    exact = (40 / (1 + GUARD) - 17.5) / 12 * 2048
    assert 0.95 * exact <= found.value <= exact
    assert len(world.proven) <= MOST_PROOFS


def test_what_cannot_be_proven_stays_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(impossible="no").install(monkeypatch)
    found = largest_batch(profile(), SHAPE, gpu(80), LENGTHS, world.prove, guard=GUARD)
    assert found.value > 0
    assert not found.proven
    assert len(world.proven) == 1


def forecast(gib: float, context: float = 0.5) -> Forecast:
    return Forecast(
        tier="estimate", allocated=1, reserved=1, needed=int(gib * GIB), context=int(context * GIB),
        parts={}, moments={}, peak="forward",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gib", "size"), [(1, 8), (7, 8), (7.5, 11), (13, 16), (14.5, 20), (21, 24), (22, 32), (70, 80), (150, 180)]
)  # fmt: skip
def test_the_smallest_gpu_has_room_for_context_and_guard(gib: float, size: int) -> None:
    assert smallest_gpu(forecast(gib), 0.0) == size


def test_a_guard_may_ask_for_a_larger_gpu() -> None:
    assert smallest_gpu(forecast(21), 0.08) == 32
    assert smallest_gpu(forecast(300), 0.0) is None


def test_gpus_give_less_than_they_are_sold_as() -> None:
    assert all(0.9 * size < usable < size for size, usable in COMMON_GPUS.items())
    assert list(COMMON_GPUS) == sorted(COMMON_GPUS)
