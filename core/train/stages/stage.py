"""What the stages do their own way between the files of a trial and its Trainer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from core.profile import Profile
from core.study.files import TrialTask
from core.train.distributed.ranks import Ranks
from core.train.model.source import Source
from core.train.model.weights import save_weights
from core.train.plan import Plan
from core.train.precision import Device, Numbers
from core.train.settings import training_arguments


class Stage(Protocol):
    """One of pt, sft, rm, dpo, kto and ppo. Everything that is not here is the same for all (`core.train.trial`)."""

    def load_model(
        self, profile: Profile, source: Source, numbers: Numbers, device: Device, folder: Path
    ) -> Any:
        """The model that trains, its trainable weights chosen, on its device. `folder` is the trial's: what a full
        fine-tuning is held to is the model as it was before, also when the trial goes on from a checkpoint.

        Raises:
            ModelError: it is not there, is damaged, or cannot be trained as asked.
        """
        ...

    def arguments(
        self,
        profile: Profile,
        task: TrialTask,
        plan: Plan,
        numbers: Numbers,
        folder: Path,
        ranks: Ranks,
    ) -> Any:
        """transformers.TrainingArguments, or the subclass of them that the stage's Trainer takes."""
        ...

    def collator(self, pad_id: int, multiple: int) -> Any:
        """What makes tensors of a list of examples; rows are as wide as a multiple of so many tokens."""
        ...

    def trainer(self, tokenizer: Any, shared: Mapping[str, Any]) -> Any:
        """The StageTrainer; `shared` are the arguments of `StageTrainer` that are the same for all stages."""
        ...

    def save(self, model: Any, folder: Path, weights: dict[str, Any] | None) -> None:
        """Save what was trained as the stage's users load it; `weights` in place of the model's own."""
        ...


class UsualParts:
    """The parts of a Stage that every stage of today does alike."""

    def arguments(
        self,
        profile: Profile,
        task: TrialTask,
        plan: Plan,
        numbers: Numbers,
        folder: Path,
        ranks: Ranks,
    ) -> Any:
        """As of Stage: transformers' own. TRL's have defaults that no profile asks for."""
        return training_arguments(profile, task, plan, numbers, folder, ranks)

    def save(self, model: Any, folder: Path, weights: dict[str, Any] | None) -> None:
        """As of Stage: the model or its adapter as transformers and peft load it; a value head is no part of either."""
        save_weights(model, folder, weights)
