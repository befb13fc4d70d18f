"""Which trained weights a person means by a study, a trial's folder or a folder of weights."""

import re
from dataclasses import dataclass
from pathlib import Path

from core.engine.client import EngineError
from core.engine.standing import value_of_trial
from core.search.metric import find
from core.study import files
from core.study.after import Weights
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader, find_study, is_study, recipe_steps

_ADAPTER, _MODEL = "adapter_config.json", "config.json"


@dataclass(frozen=True, slots=True)
class FoundRun:
    """Weights, and what they are in words."""

    weights: Weights
    text: str
    """As "trial 4 of studies/demo, the full training with the best eval_loss"."""


def find_run(name: str, trial: int | None = None, base: str | None = None) -> FoundRun:
    """The weights that a person means: a study (its completed full training, the best of several), a study with the
    number of a trial, a recipe (the study of the step that was begun last), a trial's folder, a checkpoint or a folder
    of weights.

    Raises:
        EngineError: there are none there; the message says what would make some.
        StudyError: there is no such study.
    """
    path = Path(name).expanduser()
    known = is_study(path) or bool(recipe_steps(path))
    if trial is None and path.is_dir() and not known:
        return _in_folder(path.resolve(), base)
    try:
        reader = StudyReader(find_study(name))
    except StudyError as error:
        if path.exists():
            raise EngineError(
                f"{name} holds no study, no trial and no weights (no {_ADAPTER} and no {_MODEL})"
            ) from None
        raise error from None
    return _of_study(reader, trial, base)


def _in_folder(path: Path, base: str | None) -> FoundRun:
    if (path / files.TRIAL_FILE).is_file():
        study = path.parent.parent
        if is_study(study) and path.name.isdigit():
            return _of_study(StudyReader(study), int(path.name), base)
        if not _holds_weights(path / files.OUTPUT):
            raise EngineError(f"{path} holds no weights: it has no {files.OUTPUT}/")
        return FoundRun(_weights(path / files.OUTPUT, path, base), str(path))
    if not _holds_weights(path):
        raise EngineError(
            f"{path} holds no study, no trial and no weights (no {_ADAPTER} and no {_MODEL})"
        )
    owner = _trial_of(path)
    if _is_checkpoint(path) and not files.is_whole(path):
        raise EngineError(f"{path} is not whole: it is being written, or its writing was cut short")
    text = f"checkpoint {path.name}" if _is_checkpoint(path) else str(path)
    return FoundRun(_weights(path, owner, base), text)


def _of_study(reader: StudyReader, number: int | None, base: str | None) -> FoundRun:
    state, folder = reader.state, reader.folder
    if number is None:
        return _best(reader, base)
    trial = state.trials.get(number)
    if trial is None:
        raise EngineError(f"the study {folder.path.name} has no trial {number}")
    place = folder.trial(number)
    if not _holds_weights(place.output):
        raise EngineError(_without_weights(state, trial, folder.path.name))
    text = f"trial {number} of {folder.path.name}{_measured(state, trial)}"
    return FoundRun(_weights(place.output, place.path, base), text)


def _best(reader: StudyReader, base: str | None) -> FoundRun:
    """The completed full training of a study with the best value; the last one where none has a value."""
    state, folder = reader.state, reader.folder
    full = [
        t
        for t in state.trials.values()
        if t.kind == "full"
        and t.status == "completed"
        and _holds_weights(folder.trial(t.number).output)
    ]
    if not full:
        raise EngineError(_nothing_trained(state, folder.path.name))
    metric = find(state.rank_by, state.direction)
    valued = [
        (metric.signed(v), -t.number, t)
        for t in full
        if (v := value_of_trial(t, state.rank_by)) is not None
    ]
    chosen = min(valued, key=lambda each: each[:2])[2] if valued else full[-1]
    why = "its full training" if len(full) == 1 else f"the best of {len(full)} full trainings"
    if len(full) > 1 and not valued:
        why = f"the last of {len(full)} full trainings"
    text = f"trial {chosen.number} of {folder.path.name}, {why}{_measured(state, chosen)}"
    place = folder.trial(chosen.number)
    return FoundRun(_weights(place.output, place.path, base), text)


def _measured(state: StudyState, trial: Trial) -> str:
    value = value_of_trial(trial, state.rank_by)
    return "" if value is None else f" ({state.rank_by} {value:.4g})"


def _nothing_trained(state: StudyState, name: str) -> str:
    full = [t for t in state.trials.values() if t.kind == "full"]
    if any(t.live or t.status == "queued" for t in full):
        which = next(t for t in full if t.live or t.status == "queued")
        return (
            f"the full training of {name}, trial {which.number}, is {which.status}: its weights are there when it has "
            "completed"
        )
    if full:
        return (
            f"no full training of {name} completed (trial {full[-1].number} is {full[-1].status})"
        )
    return f"{name} has only probes, which keep no weights: `tunedeck promote {name}` trains the winner in full"


def _without_weights(state: StudyState, trial: Trial, name: str) -> str:
    if trial.kind == "probe":
        return (
            f"trial {trial.number} is a probe, which keeps no weights: `tunedeck promote {name} {trial.number}` trains "
            "its settings in full"
        )
    if trial.kind == "range":
        return f"trial {trial.number} is a range test, which keeps no weights"
    return f"trial {trial.number} is {trial.status} and has no weights yet"


def _holds_weights(folder: Path) -> bool:
    return (folder / _ADAPTER).is_file() or (folder / _MODEL).is_file()


def _is_checkpoint(path: Path) -> bool:
    return re.fullmatch(r"checkpoint-\d+", path.name) is not None


def _trial_of(path: Path) -> Path | None:
    """The trial to which a folder of weights belongs: its `output`, or one of its checkpoints."""
    if path.name == files.OUTPUT:
        owner = path.parent
    elif _is_checkpoint(path) and path.parent.name == files.CHECKPOINTS:
        owner = path.parent.parent
    else:
        return None
    return owner if (owner / files.TRIAL_FILE).is_file() else None


def _weights(folder: Path, trial: Path | None, base: str | None) -> Weights:
    return Weights(str(folder.resolve()), None if trial is None else str(trial.resolve()), base)
