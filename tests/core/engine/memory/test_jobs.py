from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.catalogue import parameters
from core.engine.memory import jobs
from core.engine.memory.jobs import NO_MEMORY, keep_lengths, known_lengths, rows, shape, too_large
from core.memory.forecast import Lengths
from core.profile import Profile, from_document
from tests.core.engine.memory.findings import forecast, target

GPU = target()


def profile(**tables: Any) -> Profile:
    document: dict[str, Any] = {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}}
    for name, table in tables.items():
        document[name] = {**document.get(name, {}), **table}
    return from_document(document)


@pytest.mark.parametrize(
    "tables",
    [
        {"train": {"learning_rate": 1e-5, "seed": 7, "max_steps": 3}},
        {"profile": {"name": "another"}},
        {"method": {"lora_alpha": 64}},
        {"search": {"trials": 3}},
        {"memory": {"on_oom": "ask"}},
    ],
)
def test_trials_that_differ_in_what_no_tensor_depends_on_need_the_same(tables: Any) -> None:
    assert shape(profile(**tables), GPU) == shape(profile(), GPU)


@pytest.mark.parametrize(
    "tables",
    [
        {"train": {"per_device_train_batch_size": 7}},
        {"train": {"optim": "adafactor"}},
        {"method": {"lora_rank": 128}},
        {"data": {"cutoff_len": 77}},
        {"model": {"quantization_bit": 4}},
        {"memory": {"limit_gib": 5}},
    ],
)
def test_trials_that_differ_in_memory_have_another_shape(tables: Any) -> None:
    assert shape(profile(**tables), GPU) != shape(profile(), GPU)


def test_gpus_of_another_kind_run_other_code() -> None:
    older = target(capability=(7, 5))
    assert shape(profile(), older) != shape(profile(), GPU)
    assert shape(profile(), target(free=80)) == shape(profile(), GPU)


def test_every_parameter_that_is_left_out_exists() -> None:
    assert {parameter.key for parameter in parameters()} >= NO_MEMORY


def test_measured_lengths_are_kept_for_trials_with_the_same_rows(tmp_path: Path) -> None:
    file = tmp_path / "lengths.json"
    assert known_lengths(file, rows(profile())) is None
    keep_lengths(file, rows(profile()), Lengths(900, 300, True))
    keep_lengths(file, rows(profile(data={"cutoff_len": 64})), Lengths(64, 64, True))
    assert known_lengths(file, rows(profile(train={"learning_rate": 1e-5}))) == Lengths(
        900, 300, True
    )
    assert known_lengths(file, rows(profile(data={"cutoff_len": 64}))) == Lengths(64, 64, True)
    assert known_lengths(file, rows(profile(model={"template": "chatml"}))) is None
    file.write_text("torn")
    assert known_lengths(file, rows(profile())) is None


def test_what_counts_less_of_the_rows_has_not_measured_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lengths.json"
    with monkeypatch.context() as older:
        fields = tuple(name for name in Lengths.__struct_fields__ if name != "learnt")
        older.setattr(jobs, "Lengths", SimpleNamespace(__struct_fields__=fields))
        keep_lengths(file, rows(profile()), Lengths(900, 300, True))
    assert known_lengths(file, rows(profile())) is None


def test_rows_depend_on_all_of_the_data() -> None:
    assert rows(profile(data={"val_size": 0.2})) != rows(profile())


def test_another_split_of_the_data_may_have_other_rows() -> None:
    other = profile(train={"data_seed": 7})
    assert rows(other) != rows(profile())
    assert shape(other, GPU) != shape(profile(), GPU)


def test_only_a_proof_says_that_a_run_is_too_large() -> None:
    assert too_large(forecast(30), GPU)
    assert not too_large(forecast(23), GPU)
    assert not too_large(forecast(30, "estimate"), GPU)
    assert too_large(forecast(12), target(limit=10))
