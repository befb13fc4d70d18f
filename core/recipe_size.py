"""What a recipe takes, as far as that is known before anything runs: rows of its steps, disk for its models."""

from dataclasses import dataclass
from pathlib import Path

from core.data_size import DataSizeError, measure
from core.memory.architecture import ArchitectureError, likely_architecture
from core.profile import Profile, dataset_files, model_path
from core.recipe import Recipe, Step

MOST_BYTES = 256 << 20
"""Data files larger than this are not counted: it would take seconds."""
BYTES_A_NUMBER = 2
"""Of a model on the hub: nearly all are stored in bf16 or fp16."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that the models of a recipe take, besides what its trials hold."""

    each: int | None
    """One step's model; None where the size of the recipe's own model is not known."""
    models: int
    """How many the steps make."""
    kept: int
    """How many of them stay when the recipe is done."""


def rows_of(step: Step) -> int | None:
    """Rows of a step's data files, validation rows included; None where that is not known at once."""
    total = 0
    for name in dataset_files(step.profile):
        path = Path(name).expanduser()
        try:
            if path.stat().st_size > MOST_BYTES:
                return None
            rows = measure(path).rows
        except (OSError, DataSizeError):
            return None
        most = step.profile.data.max_samples
        total += rows if most is None else min(rows, most)
    return total


def disk_of(recipe: Recipe) -> Disk:
    """What the models between the steps, and the last one, take."""
    made = [step for step in recipe.steps if not step.makes_reward_model]
    kept = len(made) if recipe.keep_models else 1
    return Disk(_model_bytes(recipe.steps[0].profile), len(made), kept)


def _model_bytes(profile: Profile) -> int | None:
    folder = Path(model_path(profile))
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if stored:
        return stored
    try:
        return BYTES_A_NUMBER * likely_architecture(profile).size()
    except ArchitectureError:
        return None
