import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.study.metrics import (
    MetricsTail,
    MetricsWriter,
    Point,
    decode_point,
    encode_point,
    merge,
    read_points,
)

any_float = st.none() | st.floats()
points = st.builds(
    Point,
    t=st.floats(0, 2e9),
    step=st.integers(0, 10**6),
    attempt=st.integers(1, 5),
    loss=any_float,
    eval_loss=any_float,
    grad_norm=any_float,
    lr=any_float,
    tokens=st.none() | st.integers(0, 2**50),
    mem_peak=st.none() | st.integers(0, 2**50),
)


def same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


@given(points)
def test_a_point_is_read_as_it_was_written(point: Point) -> None:
    read = decode_point(encode_point(point))
    assert read is not None
    for name in (
        "t",
        "step",
        "attempt",
        "loss",
        "eval_loss",
        "grad_norm",
        "lr",
        "tokens",
        "mem_peak",
    ):
        assert same(getattr(read, name), getattr(point, name)), name


def test_numbers_that_are_not_finite_stay_valid_json_and_can_be_told_apart() -> None:
    line = encode_point(Point(t=1.0, step=2, loss=math.nan, grad_norm=math.inf, lr=-math.inf))
    assert b'"loss":"NaN"' in line
    assert b'"grad_norm":"Infinity"' in line
    read = decode_point(line)
    assert read is not None
    assert math.isnan(read.loss or 0)
    assert (read.grad_norm, read.lr) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"t":1}',
        b'{"t":1,"step":2,"loss":"big"}',
        b"[1,2]",
        b"\xff",
        b'{"t":1,"step":2,"loss":"\xff"}',
    ],
)
def test_lines_of_another_form_are_no_points(line: bytes) -> None:
    assert decode_point(line) is None


def test_a_tail_reads_only_what_was_added(tmp_path: Path) -> None:
    writer, tail = MetricsWriter(tmp_path / "m"), MetricsTail(tmp_path / "m")
    writer.write(Point(t=1.0, step=1, loss=2.0))
    assert [p.step for p in tail.poll()] == [1]
    assert tail.poll() == []
    writer.write(Point(t=2.0, step=2, loss=1.5))
    assert [p.step for p in tail.poll()] == [2]
    writer.close()


def test_a_tail_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    line = encode_point(Point(t=1.0, step=7, loss=2.0))
    (tmp_path / "m").write_bytes(line[:10])
    tail = MetricsTail(tmp_path / "m")
    assert tail.poll() == []
    with (tmp_path / "m").open("ab") as file:
        file.write(line[10:])
    assert [p.step for p in tail.poll()] == [7]


def test_a_tail_begins_anew_when_the_file_was_replaced(tmp_path: Path) -> None:
    file = tmp_path / "m"
    file.write_bytes(b"".join(encode_point(Point(t=1.0, step=i)) for i in range(5)))
    tail = MetricsTail(file)
    assert len(tail.poll()) == 5
    file.write_bytes(encode_point(Point(t=1.0, step=0)))
    assert [p.step for p in tail.poll()] == [0]


def test_a_tail_of_no_file_is_empty(tmp_path: Path) -> None:
    assert MetricsTail(tmp_path / "m").poll() == []


def test_a_writer_closes_the_torn_line_of_a_killed_one(tmp_path: Path) -> None:
    file = tmp_path / "m"
    file.write_bytes(encode_point(Point(t=1.0, step=1)) + b'{"t":2.0,"st')
    writer = MetricsWriter(file)
    writer.write(Point(t=3.0, step=3))
    writer.close()
    assert [p.step for p in read_points(file)] == [1, 3]


def test_an_attempt_that_continues_replaces_what_came_after_its_checkpoint() -> None:
    first = [Point(t=float(i), step=i) for i in range(1, 8)]
    again = [Point(t=100.0 + i, step=i, attempt=2) for i in range(5, 9)]
    merged = merge(list(first), again)
    assert [(p.step, p.attempt) for p in merged] == [(i, 1) for i in range(1, 5)] + [
        (i, 2) for i in range(5, 9)
    ]


def test_an_attempt_that_starts_over_replaces_everything() -> None:
    merged = merge([Point(t=1.0, step=i) for i in range(1, 9)], [Point(t=2.0, step=1, attempt=2)])
    assert [(p.step, p.attempt) for p in merged] == [(1, 2)]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=6))
def test_merged_steps_never_go_back_within_a_curve(attempts: list[tuple[int, int]]) -> None:
    merged: list[Point] = []
    for number, (start, length) in enumerate(attempts, 1):
        merge(merged, [Point(t=0.0, step=start + i, attempt=number) for i in range(length)])
    steps = [p.step for p in merged]
    assert steps == sorted(set(steps))
