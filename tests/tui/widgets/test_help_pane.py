"""The explanation, laid out for much and for little room."""

from rich.cells import cell_len

from tui.explain import Explanation
from tui.widgets.help_pane import compact, roomy

FULL = Explanation(
    title="Learning rate",
    key="train.learning_rate",
    problem="-1 is not allowed: a number above 0",
    note="write a list",
    help="The length of a step. " * 12,
    facts=(("Works", "3e-5 – 1e-3"), ("Takes", "a number above 0"), ("Default", "2e-4")),
)


def _texts(laid: list[list[tuple[str, object]]]) -> list[str]:
    return ["".join(text for text, _ in pieces) for pieces in laid]


def test_little_room_shows_the_problem_and_what_works_first() -> None:
    texts = _texts(compact(FULL, 60))  # type: ignore[arg-type]
    assert texts[0] == "Learning rate  train.learning_rate"
    assert texts[1:4] == [FULL.problem, FULL.note, "Works: 3e-5 – 1e-3"]


def test_much_room_shows_everything_on_lines_of_its_own() -> None:
    texts = _texts(roomy(FULL, 60))  # type: ignore[arg-type]
    for label, text in FULL.facts:
        assert any(line.startswith(label) and text in line for line in texts)


def test_no_line_is_wider_than_the_pane() -> None:
    for width in (20, 33, 80):
        for lay in (compact, roomy):
            assert max(cell_len(text) for text in _texts(lay(FULL, width))) <= width  # type: ignore[arg-type]


def test_a_long_name_gives_way_to_the_title() -> None:
    assert _texts(compact(FULL, 20))[0] == "Learning rate"  # type: ignore[arg-type]
