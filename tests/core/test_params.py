"""The models of a profile's tables: what each says about its parameters."""

import pytest
from pydantic import ValidationError

from core.catalogue import Parameter, parameters
from core.params import SEARCHABLE_TABLES, TABLES, DataTable, Doc, ModelTable, Range, TrainTable

EDITABLE = [p for p in parameters() if p.table != "tuned"]


@pytest.mark.parametrize("parameter", EDITABLE, ids=lambda p: p.key)
def test_every_default_is_allowed(parameter: Parameter) -> None:
    if not parameter.required:
        assert parameter.validate(parameter.default) == parameter.default


@pytest.mark.parametrize("parameter", EDITABLE, ids=lambda p: p.key)
def test_every_parameter_is_explained_in_a_sentence(parameter: Parameter) -> None:
    assert len(parameter.help) >= 40
    assert parameter.help.rstrip().endswith(".")
    assert parameter.doc.title != parameter.name
    assert any(isinstance(item, Doc) for item in parameter.field.metadata)


@pytest.mark.parametrize(
    "parameter", [p for p in EDITABLE if p.kind in ("int", "float")], ids=lambda p: p.key
)
def test_every_number_has_bounds_or_a_range_that_works(parameter: Parameter) -> None:
    bounded = parameter.low is not None and parameter.high is not None
    assert bounded or parameter.doc.works or (parameter.low is not None and parameter.optional)


@pytest.mark.parametrize("parameter", EDITABLE, ids=lambda p: p.key)
def test_every_condition_names_a_parameter_and_values_that_it_takes(parameter: Parameter) -> None:
    for when in parameter.doc.when:
        other = next(p for p in EDITABLE if p.key == when.key)
        for value in when.values:
            assert value is None or other.validate(value) == value


def test_names_are_unique_where_they_can_be_searched() -> None:
    names = [p.name for p in parameters() if p.table in SEARCHABLE_TABLES]
    assert len(names) == len(set(names))


def test_names_that_llama_factory_has_are_used_once() -> None:
    names = [p.doc.llamafactory for p in parameters() if p.doc.llamafactory]
    assert len(names) == len(set(names))


def test_each_table_says_what_it_is_for() -> None:
    assert all((table.__doc__ or "").strip().endswith(".") for table in TABLES.values())


def test_unknown_keys_and_guessed_types_are_refused() -> None:
    with pytest.raises(ValidationError):
        ModelTable.model_validate({"model_name_or_path": "demo", "modle": 1})
    with pytest.raises(ValidationError):
        TrainTable.model_validate({"learning_rate": "1e-4"})
    with pytest.raises(ValidationError):
        DataTable.model_validate({"dataset": "demo", "packing": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        TrainTable(learning_rate=value)
    with pytest.raises(ValidationError):
        Range(low=0, high=value)


def test_a_table_does_not_change() -> None:
    with pytest.raises(ValidationError):
        TrainTable().learning_rate = 1.0  # type: ignore[misc]
