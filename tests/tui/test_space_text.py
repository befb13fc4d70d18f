"""A search space's entry as a line of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalogue import find, parameters, searchable, space_problem
from core.params import Range
from tui.space_text import parse_space, space_text, suggested_space

DEFAULTS = {parameter.key: parameter.default for parameter in parameters()}


@pytest.mark.parametrize(
    ("name", "text", "entry"),
    [
        ("learning_rate", "1e-5, 1e-4, 3e-4", [1e-5, 1e-4, 3e-4]),
        ("learning_rate", "1e-5,", [1e-5]),
        ("learning_rate", "1e-5 .. 1e-3 log", Range(low=1e-5, high=1e-3, scale="log")),
        ("learning_rate", "1e-5..1e-3", Range(low=1e-5, high=1e-3)),
        ("lora_dropout", "0.0 .. 0.1 step 0.02", Range(low=0, high=0.1, step=0.02)),
        ("lora_rank", "8 .. 64 linear step 8", Range(low=8, high=64, step=8)),
        (
            "learning_rate",
            '{ low = 1e-5, high = 1e-3, scale = "log" }',
            Range(low=1e-5, high=1e-3, scale="log"),
        ),
        ("lora_rank", "[8, 16.0]", [8, 16]),
        ("lora_target", 'all, "q_proj,v_proj"', ["all", "q_proj,v_proj"]),
        ("use_dora", "yes, false", [True, False]),
        ("quantization_bit", "4, 8", [4, 8]),
    ],
)
def test_a_list_or_a_range_is_read(name: str, text: str, entry: object) -> None:
    assert parse_space(find(name), text) == entry


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("learning_rate", "", "write a list"),
        ("lora_target", "", "write a list of values"),
        ("learning_rate", "fast", '"fast" is not allowed: a number above 0'),
        ("learning_rate", "x .. 3", "x is no number"),
        ("learning_rate", "nan .. 3", "nan is no end of a range"),
        ("learning_rate", "1e-3 .. 1e-5", "must be below"),
        ("learning_rate", "0 .. 1e-3 log", "must start above 0"),
        ("learning_rate", "1e-5 .. 1e-3 log step 1e-5", "linear range only"),
        ("learning_rate", "1e-5 .. 1e-3 step 0", "above 0"),
        ("learning_rate", "1e-5 .. 1e-3 quickly", "write a list"),
        ("learning_rate", "1e-5, 1e-5", "twice"),
        ("lora_rank", "8 .. 2000", "2000 is not allowed"),
        ("lora_rank", "1.5 .. 8", "no whole number"),
        ("lr_scheduler_type", "cosine .. linear", "not allowed"),
        ("quantization_bit", "4, none", "cannot hold"),
        ("lora_target", '"q_proj', 'ends with "'),
        ("learning_rate", "{ low = 1 }", "write a list"),
        ("dataset", "a.json, b.json", "cannot be searched"),
    ],
)
def test_what_cannot_be_read_says_what_would_be_right(name: str, text: str, wrong: str) -> None:
    key = "data.dataset" if name == "dataset" else name
    with pytest.raises(ValueError) as error:
        parse_space(find(key), text)
    assert wrong in str(error.value)


@pytest.mark.parametrize("parameter", searchable(), ids=lambda p: p.key)
def test_what_is_proposed_can_be_searched(parameter: object) -> None:
    assert hasattr(parameter, "default")
    text = suggested_space(parameter, DEFAULTS)  # type: ignore[arg-type]
    if text:
        entry = parse_space(parameter, text)  # type: ignore[arg-type]
        assert space_problem(parameter, entry) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lower", [("method.finetuning_type", "full"), ("method.stage", "dpo"), ("method.stage", "ppo")]
)
def test_lower_rates_are_proposed_where_they_are_usual(lower: tuple[str, str]) -> None:
    rate = find("learning_rate")
    lora = parse_space(rate, suggested_space(rate, DEFAULTS))
    less = parse_space(rate, suggested_space(rate, {**DEFAULTS, lower[0]: lower[1]}))
    assert isinstance(lora, Range)
    assert isinstance(less, Range)
    assert less.high < lora.high


@given(st.lists(st.floats(1e-9, 99), min_size=1, max_size=6, unique=True))
def test_a_list_of_numbers_survives_the_way_to_text_and_back(values: list[float]) -> None:
    rate = find("learning_rate")
    assert parse_space(rate, space_text(list(values))) == values


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_a_list_of_texts_survives_or_is_refused(values: list[str]) -> None:
    target = find("lora_target")
    text = space_text(list(values))
    try:
        entry = parse_space(target, text)
    except ValueError:
        return
    plain = all(v.isascii() and v.isalnum() and v.lower() not in ("none", "null") for v in values)
    assert entry == values or not plain


@given(st.floats(1e-9, 1), st.floats(1.02, 50), st.sampled_from(["linear", "log", "step"]))
def test_a_range_survives_the_way_to_text_and_back(low: float, high: float, kind: str) -> None:
    entry = Range(
        low=low,
        high=high,
        scale="log" if kind == "log" else "linear",
        step=0.01 if kind == "step" else None,
    )
    assert parse_space(find("learning_rate"), space_text(entry)) == entry


@given(st.text(max_size=30))
def test_no_text_does_anything_but_be_read_or_be_refused(text: str) -> None:
    for name in ("learning_rate", "lora_rank", "lora_target", "lr_scheduler_type", "use_dora"):
        try:
            parse_space(find(name), text)
        except ValueError as error:
            assert str(error)
