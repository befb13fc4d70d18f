"""The catalogue: finding, reading and checking parameters."""

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalogue import (
    Parameter,
    UnknownParameterError,
    find,
    json_schema,
    nearest,
    parameters,
    searchable,
    space_problem,
)
from core.params import TABLES, Range
from core.profile import load, ready_made
from core.values import toml_value


def test_a_parameter_is_found_by_its_full_name_and_by_its_name_alone() -> None:
    assert find("train.learning_rate") is find("learning_rate")
    assert find("limit_gib").key == "memory.limit_gib"
    assert find("seed").key == "train.seed"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("lerning_rate", "train.learning_rate"),
        ("train.lora_rnk", "method.lora_rank"),
        ("quantisation_bit", "model.quantization_bit"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(slip: str, meant: str) -> None:
    with pytest.raises(UnknownParameterError) as error:
        find(slip)
    assert error.value.nearest[0] == meant
    assert meant in str(error.value)


def test_nonsense_is_answered_without_a_guess() -> None:
    with pytest.raises(UnknownParameterError) as error:
        find("zzzzzzzz")
    assert error.value.nearest == ()
    assert "did you mean" not in str(error.value)
    assert nearest("trian", ["train", "data"]) == ("train",)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("learning_rate", "3e-4", 3e-4),
        ("learning_rate", " 1 ", 1.0),
        ("lora_rank", "16", 16),
        ("lora_rank", "1e2", 100),
        ("lora_rank", "1_000", 1000),
        ("lora_rank", "16.0", 16),
        ("packing", "Yes", True),
        ("packing", "off", False),
        ("quantization_bit", "4", 4),
        ("quantization_bit", "", None),
        ("max_steps", "none", None),
        ("max_steps", "not set", None),
        ("search.stopping", "none", "none"),
        ("lr_scheduler_type", "linear", "linear"),
        ("data.dataset", "a.json", "a.json"),
        ("data.dataset", '["a.json", "b.json"]', ["a.json", "b.json"]),
        ("resources.devices", "cpu", "cpu"),
        ("resources.devices", "0, 1", [0, 1]),
        ("resources.devices", "GPU-1a,2", ["GPU-1a", 2]),
        ("lr_scheduler_kwargs", "{ num_cycles = 2 }", {"num_cycles": 2}),
        ("profile.notes", "", ""),
    ],
)
def test_typed_text_is_read(key: str, text: str, value: Any) -> None:
    read = find(key).parse(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "wrong"),
    [
        ("learning_rate", "fast", '"fast" is not allowed: a number above 0, at most 100'),
        ("learning_rate", "", "a value is needed"),
        ("learning_rate", "nan", "not allowed"),
        ("learning_rate", "inf", "not allowed"),
        ("learning_rate", "0", "above 0"),
        ("lora_rank", "1.5", "a whole number at least 1, at most 1024"),
        ("lora_dropout", "1", "at least 0, below 1"),
        ("packing", "maybe", "true or false"),
        ("quantization_bit", "5", "one of 4, 8 or not set"),
        ("lr_scheduler_type", "cosin", 'one of "linear", "cosine"'),
        ("profile.name", "a/b", "not allowed"),
        ("lr_scheduler_kwargs", "2", "a table of settings"),
        ("data.dataset", "[1]", "text or a list of texts"),
    ],
)
def test_text_that_means_nothing_says_what_would_be_right(key: str, text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        find(key).parse(text)


@given(st.sampled_from(parameters()), st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_sentence(parameter: Parameter, text: str) -> None:
    try:
        value = parameter.parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert value is None or parameter.validate(value) == value


@given(st.sampled_from([p for p in parameters() if p.kind in ("int", "float")]), st.data())
def test_bounds_that_are_told_are_those_that_hold(
    parameter: Parameter, data: st.DataObject
) -> None:
    number = st.integers(-(10**7), 10**7) if parameter.kind == "int" else st.floats(-1e7, 1e7)
    value = data.draw(number)
    below = parameter.low is not None and (
        value < parameter.low or (parameter.low_open and value == parameter.low)
    )
    above = parameter.high is not None and (
        value > parameter.high or (parameter.high_open and value == parameter.high)
    )
    if below or above:
        with pytest.raises(ValueError, match="not allowed"):
            parameter.validate(value)
    else:
        assert parameter.validate(value) == value


def test_a_parameter_applies_only_where_it_has_an_effect() -> None:
    rank, kind = find("lora_rank"), find("quantization_type")
    assert rank.applies({})
    assert not rank.applies({"method.finetuning_type": "full"})
    assert kind.applies({"model.quantization_bit": 4})
    assert not kind.applies({"model.quantization_bit": 8})
    # What it depends on has no effect itself.
    assert not kind.applies({"model.quantization_bit": 4, "method.finetuning_type": "full"})


def test_what_names_code_data_or_lists_cannot_be_searched() -> None:
    names = {p.name for p in searchable()}
    assert {"learning_rate", "lora_rank", "cutoff_len", "model_name_or_path"} <= names
    assert not names & {
        "dataset",
        "eval_dataset",
        "trust_remote_code",
        "trials",
        "limit_gib",
        "lr_scheduler_kwargs",
    }


@pytest.mark.parametrize(
    ("key", "entry", "wrong"),
    [
        ("data.dataset", ["a"], "cannot be searched"),
        ("learning_rate", [], "empty"),
        ("learning_rate", [1e-4, "x"], '"x" is not allowed'),
        ("lora_rank", [8, 8], "twice"),
        ("lr_scheduler_type", Range(low=0, high=1), "by a list"),
        ("learning_rate", Range(low=1, high=1), "must be below"),
        ("learning_rate", Range(low=-1, high=1, scale="log"), "must start above 0"),
        ("learning_rate", Range(low=1e-5, high=1e-3, scale="log", step=1e-5), "linear range only"),
        ("lora_rank", Range(low=1, high=8.5), "8.5 is no whole number"),
        ("lora_rank", Range(low=1, high=4096), "4096 is not allowed"),
        ("lora_rank", Range(low=4, high=16, step=1.5), "step 1.5 is no whole number"),
        ("lora_rank", Range(low=4, high=16, step=64), "larger than the range: only 4 is in it"),
        ("max_steps", Range(low=1, high=100_001, step=1), "more than 100000 values"),
        ("learning_rate", Range(low=1e-5, high=1, step=1e-6), "more than 100000 values"),
    ],
)
def test_a_space_that_cannot_be_searched_says_why(key: str, entry: Any, wrong: str) -> None:
    assert wrong in (space_problem(find(key), entry) or "")


def test_a_space_that_can_be_searched_has_no_problem() -> None:
    assert space_problem(find("learning_rate"), Range(low=1e-5, high=1e-3, scale="log")) is None
    assert space_problem(find("lora_rank"), [8, 16]) is None
    assert space_problem(find("val_size"), Range(low=0, high=0.5, step=0.1)) is None


# -- JSON schema --------------------------------------------------------------------------------


def test_the_schema_has_every_parameter_with_its_explanation() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(TABLES)
    for parameter in parameters():
        entry = schema["properties"][parameter.table]["properties"][parameter.name]
        assert entry["description"].startswith(parameter.help)
        if parameter.doc.works and parameter.name != "space":
            assert parameter.doc.works in entry["description"]


def test_the_schema_refuses_unknown_tables_and_keys() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(t["additionalProperties"] is False for t in schema["properties"].values())
    space = schema["properties"]["search"]["properties"]["space"]
    assert space["additionalProperties"] is False
    assert set(space["properties"]) == {p.name for p in searchable()}


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = json_schema()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [r for v in node.values() for r in references(v)]
        return [r for v in node for r in references(v)] if isinstance(node, list) else []

    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


@pytest.mark.parametrize("path", ready_made(), ids=lambda p: p.stem)
def test_ready_made_profiles_fit_the_schema(path: Any) -> None:
    schema = json_schema()
    load(path)
    document = tomllib.loads(path.read_text())
    assert _fits(document, schema, schema)
    document["train"]["learning_rte"] = 1
    assert not _fits(document, schema, schema)


_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def _fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether `value` fits, as far as the words go that our schema uses."""
    if "$ref" in schema:
        return _fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema and not any(_fits(value, s, root) for s in schema["anyOf"]):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema:
        if isinstance(value, bool) and schema["type"] != "boolean":
            return False
        if not isinstance(value, _TYPES[schema["type"]]):
            return False
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        return False
    if isinstance(value, list):
        return all(_fits(v, schema.get("items", {}), root) for v in value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        if not set(schema.get("required", [])) <= set(value):
            return False
        for key, item in value.items():
            if key in known:
                if not _fits(item, known[key], root):
                    return False
            elif others is False or (isinstance(others, dict) and not _fits(item, others, root)):
                return False
    return True


def test_allowed_values_are_told_in_words() -> None:
    assert find("learning_rate").allowed() == "a number above 0, at most 100"
    assert find("quantization_bit").allowed() == "one of 4, 8 or not set"
    assert find("seed").allowed() == "a whole number at least 0, at most 4294967295"
    assert find("max_steps").allowed().endswith("at most 10000000 or not set")
    assert toml_value([1e-4]) in "[1e-4]"
