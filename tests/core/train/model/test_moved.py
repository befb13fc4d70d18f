"""Where the model of trained weights is, also after a recipe has moved."""

from pathlib import Path

import pytest

from core.train.model.moved import base_now

PROFILE = '[model]\nmodel_name_or_path = "{}"\n[data]\ndataset = "demo"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The second step of a recipe that has moved here from somewhere."""
    (tmp_path / "01-chat/model").mkdir(parents=True)
    step = tmp_path / "02-reward"
    (step / "trials/0001/output").mkdir(parents=True)
    (step / "trials/0001/checkpoints/checkpoint-2").mkdir(parents=True)
    (step / "profile.toml").write_text(PROFILE.format("../01-chat/model"))
    return tmp_path


@pytest.mark.parametrize("weights", ["output", "checkpoints/checkpoint-2"])
def test_a_step_s_base_is_found_beside_it(recipe: Path, weights: str) -> None:
    place = recipe / "02-reward/trials/0001" / weights
    assert base_now("/gone/01-chat/model", place) == str(recipe / "01-chat/model")


def test_a_base_that_is_there_or_is_no_path_stays(recipe: Path, tmp_path: Path) -> None:
    place = recipe / "02-reward/trials/0001/output"
    (tmp_path / "own").mkdir()
    for base in (str(tmp_path / "own"), "somebody/model", "demo", ""):
        assert base_now(base, place) == base


def test_a_base_that_is_named_from_the_weights_own_folder_is_found(recipe: Path) -> None:
    place = recipe / "02-reward/trials/0001/output"
    assert Path(base_now("../../../../01-chat/model", place)).resolve() == recipe / "01-chat/model"


@pytest.mark.parametrize("profile", [PROFILE.format("../01-chat/other"), "[model", "", None])
def test_what_nobody_knows_better_stays_as_it_was_told(recipe: Path, profile: str | None) -> None:
    file = recipe / "02-reward/profile.toml"
    file.unlink() if profile is None else file.write_text(profile)
    place = recipe / "02-reward/trials/0001/output"
    assert base_now("/gone/01-chat/model", place) == "/gone/01-chat/model"
    assert base_now("/gone/01-chat/model", Path("/")) == "/gone/01-chat/model"


def test_another_model_is_not_taken_for_the_base(recipe: Path) -> None:
    place = recipe / "02-reward/trials/0001/output"
    assert base_now("/gone/llama", place) == "/gone/llama"
