"""A run's own Trainer, which measures and does not train: its numbers are what training would have logged.

The model is built as the run built it, the weights are taken up as a run that goes on takes them up, and the rows are
evaluated as they were between updates. Before the weights are taken up the model is the base.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.profile import Profile
from core.rows import AnyRow
from core.study.files import TrialTask
from core.train.data import batches as data
from core.train.data.batches import Examples
from core.train.data.chat import ChatEncoder
from core.train.data.rows import Split
from core.train.errors import SettingsError
from core.train.precision import Device, decide
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.trial import Loaded, Trial


class Ticks(Requests):
    """Counts the batches of an evaluation: the Trainer asks before each whether it is to end."""

    def __init__(self, on_batch: Callable[[int], None]) -> None:
        super().__init__()
        self._on_batch = on_batch
        self.batches = 0

    def agree(self) -> None:
        """One more begins."""
        self.batches += 1
        self._on_batch(self.batches)


@dataclass(frozen=True, slots=True)
class FixedRows:
    """Stands in for what reads a trial's data: the rows are read already, and nothing is trained."""

    rows: Sequence[AnyRow]
    profile: Profile

    def begin(self) -> None:
        """Nothing is left to read."""

    def examples(self, encoder: ChatEncoder, check: Callable[[], None]) -> Examples:
        """The rows to evaluate on. A Trainer wants rows to train on as well: they are the same."""
        split = Split(self.rows, self.rows)
        table = self.profile.data.model_copy(update={"packing": False})
        return data.build_examples(split, encoder, table, self.profile.method.stage, check)


class Examination(Trial):
    """A trial that is measured."""

    def __init__(
        self,
        folder: Path,
        profile: Profile,
        device: Device,
        rows: Sequence[AnyRow],
        on_batch: Callable[[int], None],
    ) -> None:
        """`folder` is for what has to lie somewhere, as a .gguf file's model; `profile` one that `measurable` made."""
        task = TrialTask(trial=0, attempt=1, kind="full", budget=1.0, device=device)
        self._ticks = Ticks(on_batch)
        super().__init__(folder, task, profile, self._ticks, Stopwatch())
        self._rows = rows
        self._loaded: Loaded | None = None

    def open(self) -> Loaded:
        """Load the model as it was before training, and the rows.

        Raises:
            UsageError: the input is wrong.
        """
        loaded = self._load()
        plan = self._make_plan(loaded.examples)
        self._make_trainer(loaded, plan, None)
        loaded.tokenizer.chat_template = loaded.encoder.jinja
        self._loaded = loaded
        return loaded

    @property
    def loaded(self) -> Loaded:
        """What `open` has loaded."""
        assert self._loaded is not None, "it is opened first"
        return self._loaded

    def take_up(self, weights: Path) -> None:
        """Give the model the weights of a folder, in the numbers in which the run held them."""
        held = {name: weight.dtype for name, weight in self._trainer.model.named_parameters()}
        self._trainer._load_from_checkpoint(str(weights))
        for name, weight in self._trainer.model.named_parameters():
            # peft makes bf16 adapters fp32 when it loads them.
            weight.data = weight.data.to(held[name])

    @property
    def model(self) -> Any:
        """The model, in evaluation mode."""
        return self._trainer.model.eval()

    @property
    def batches(self) -> int:
        """Batches of one measurement."""
        size = int(self._trainer.args.per_device_eval_batch_size)
        return -(-len(self.loaded.examples.evaluation) // size)

    def measure(self) -> dict[str, float]:
        """What the stage tells of an evaluation, by name."""
        self._ticks.batches = 0
        metrics = self._trainer._measure(self.loaded.examples.evaluation)
        return dict(metrics)

    def _reading(self) -> Any:
        return FixedRows(self._rows, self._profile)


def measurable(profile: Profile, device: Device, batch_size: int | None) -> Profile:
    """The profile of a run without what only its training needs, in numbers that the device has."""
    changes: dict[str, Any] = {
        "optim": "adamw_torch",
        "offload_optimizer": False,
        "gradient_checkpointing": False,
        "offload_activations": False,
    }
    if batch_size is not None:
        changes["per_device_eval_batch_size"] = batch_size
    train = profile.train.model_copy(update=changes)
    method = profile.method
    try:
        decide(train, method, device)
    except SettingsError:
        train = train.model_copy(update={"precision": "auto"})
        method = method.model_copy(update={"adapter_precision": "auto"})
    memory = profile.memory.model_copy(update={"limit_gib": None})
    return replace(profile.as_training(), train=train, method=method, memory=memory)
