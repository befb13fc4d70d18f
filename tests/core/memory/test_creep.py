import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.creep import Creep
from core.memory.forecast import GIB


def said(creep: Creep, *held: float) -> list[str]:
    heard = (creep.observe(step, int(size * GIB)) for step, size in enumerate(held, 1))
    return [text for text in heard if text is not None]


def test_memory_that_grows_to_near_its_limit_is_told_with_both_numbers_and_steps() -> None:
    (text,) = said(Creep(10 * GIB), 6, 7, 7, 8, 9, 9.3)
    assert text == (
        "its memory grows towards its limit: 9.3 GiB at step 6, after 7 GiB at step 2, of 10 GiB "
        "that it may take (93%); a longer batch may not fit"
    )


def test_it_is_told_once() -> None:
    assert len(said(Creep(10 * GIB), 6, 6, 6, 9.3, 9.5, 5, 9.9)) == 1


@pytest.mark.parametrize(
    "held",
    [
        (9.5, 9.5, 9.5, 9.5, 9.5),
        (9.5, 9.5, 9.5, 9.55, 9.5),
        (6, 6, 6, 8, 9.1, 9.1),
        (6, 9.9, 6, 9.9),
        (9.5,),
        (),
    ],
)
def test_what_is_full_from_the_start_or_far_from_the_limit_is_not_told(
    held: tuple[float, ...],
) -> None:
    assert said(Creep(10 * GIB), *held) == []


@given(st.lists(st.integers(0, 1 << 40)), st.sampled_from([0, -1]))
def test_without_a_known_capacity_nothing_is_told(held: list[int], capacity: int) -> None:
    creep = Creep(capacity)
    assert all(creep.observe(step, size) is None for step, size in enumerate(held))


def test_what_the_allocator_only_keeps_is_told_apart_from_tensors() -> None:
    creep = Creep(10 * GIB)
    for step in (1, 2, 3):
        creep.observe(step, 6 * GIB, 5 * GIB)
    text = creep.observe(9, int(9.5 * GIB), 7 * GIB)
    assert text is not None
    assert "9.5 GiB at step 9 (tensors took up to 7 GiB of it), after 6 GiB at step 1" in text
