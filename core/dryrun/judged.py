"""What stages rm, dpo and kto do in an update and in an evaluation: the losses of their own trainers, on fake tensors.

The trainers are the worker's (core.train.stages), without the Trainer's __init__, which makes an accelerator, folders
and samplers that nothing here needs.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from core.data_size import batch_width
from core.dryrun.assumed import Assumed
from core.dryrun.steps import ones, prepared
from core.profile import Profile
from core.train.data.examples import Tagged
from core.train.measures import Measures
from core.train.stages.dpo import DpoTrainer
from core.train.stages.kto import KtoTrainer, Verdicts
from core.train.stages.reference import Frozen, Reference
from core.train.stages.reward import RewardTrainer

_NAMES = ("input_ids", "attention_mask", "completion_mask")


class Judged:
    """The work (`steps.Work`) of a stage whose answers somebody has judged."""

    def __init__(
        self,
        profile: Profile,
        model: Any,
        reference: Reference | None,
        autocast: Any,
        assumed: Assumed,
        longest: int,
    ) -> None:
        """Prepares `model` and the reference's. What is `assumed` of the data holds for the losses alone. `longest`:
        tokens of the longest row, to train or to evaluate on."""
        _assume_nothing(model, assumed)
        if isinstance(reference, Frozen):
            _assume_nothing(reference.model, assumed)
        stage = profile.method.stage
        self._names = _NAMES[:2] if stage == "rm" else _NAMES
        self._trainer: Any
        match stage:
            case "rm":
                self._trainer = _Reward(model, autocast)
            case "kto":
                self._trainer = _Kto(
                    model, autocast, reference, profile, (longest, assumed.answers)
                )
            case _:
                self._trainer = _Dpo(model, autocast, reference, profile)
        self._model = prepared(model, autocast)

    def batch(self, rows: int, length: int, *, packed: bool) -> dict[str, Any]:
        """As of Work; a pair becomes two rows."""
        made = ones(self._names, rows * self._trainer.answers, length)
        return made | _verdicts(rows) if isinstance(self._trainer, _Kto) else made

    def learnt(self, batches: Sequence[dict[str, Any]]) -> Any:
        """As of Work: rows."""
        return torch.tensor(sum(self._trainer.rows_in(batch) for batch in batches))

    def begin(self, batches: Sequence[dict[str, Any]]) -> None:
        """As of Work: kto's reference point."""
        if isinstance(self._trainer, _Kto):
            self._trainer.find_point(batches)

    def loss(self, batch: dict[str, Any], learnt: Any) -> Any:
        """As of Work."""
        return self._trainer.compute_loss(self._model, dict(batch), num_items_in_batch=learnt)

    def end(self) -> None:
        """As of Work."""
        self._trainer.measures.clear()

    def evaluate(self, batch: dict[str, Any]) -> None:
        """As of Work."""
        if isinstance(self._trainer, _Kto):
            self._trainer.widen(batch)
        self._trainer.score(self._trainer.new_scores(), batch)


def _assume_nothing(model: Any, assumed: Assumed) -> None:
    """Let the layers of `model` run as in any other stage."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    forward = inner.base_model.forward

    def run(*args: Any, **named: Any) -> Any:
        with assumed.paused():
            return forward(*args, **named)

    inner.base_model.forward = run


class _Accelerator:
    """What a loss asks of accelerate's where one process trains."""

    device = torch.device("cpu")

    def __init__(self, autocast: Any) -> None:
        self._autocast = autocast

    def prepare_model(self, model: Any, evaluation_mode: bool = False) -> Any:
        """The model, its forward under autocast."""
        return prepared(model, self._autocast)

    def gather(self, tensor: Any) -> Any:
        """Of one process: its own."""
        return tensor

    gather_for_metrics = gather


class _Moments:
    """What trainers tell the parts of a run to; `steps` marks them itself."""

    def enter(self, moment: str) -> None:
        """Nothing."""


class _Bare:
    """What a trainer's loss reads of the Trainer; stands before the trainer among the bases, and leaves its __init__
    out."""

    def __init__(self, model: Any, autocast: Any) -> None:
        self.model = model
        self.accelerator = _Accelerator(autocast)
        self.args = SimpleNamespace(device=self.accelerator.device)
        self.measures = Measures()
        self._memory: Any = _Moments()


class _Reward(_Bare, RewardTrainer):
    def __init__(self, model: Any, autocast: Any) -> None:
        super().__init__(model, autocast)
        self.take_up()


class _Dpo(_Bare, DpoTrainer):
    def __init__(
        self, model: Any, autocast: Any, reference: Reference | None, profile: Profile
    ) -> None:
        super().__init__(model, autocast)
        self.take_up(reference)
        self.weigh(profile.alignment)


class _Kto(_Bare, KtoTrainer):
    """Its mismatched rows are as wide as they can be."""

    def __init__(
        self,
        model: Any,
        autocast: Any,
        reference: Reference | None,
        profile: Profile,
        limits: tuple[int, int],
    ) -> None:
        """`limits`: tokens of the longest row, and of the longest answer."""
        super().__init__(model, autocast)
        self.take_up(reference)
        self.weigh(profile.alignment)
        self._longest, self._answer = limits
        self._width = 0

    def widen(self, batch: dict[str, Any]) -> None:
        """Let mismatched rows be as wide as what the rows of `batch` may make."""
        width = batch["input_ids"].shape[1]
        # The longest prompt leaves its own row room for a token. Another's answer is cut where the longest row ends,
        # which may stand among the rows of the other kind: those to train on, or those to evaluate on.
        made = batch_width(width - 1 + min(self._answer, width), cuda=True)
        self._width = min(self._longest, made)

    def find_point(self, batches: Sequence[dict[str, Any]]) -> None:
        """The reference point of an update with these batches."""
        self._point = None
        self.widen(batches[0])
        self._point = self._reference_point([_rows(len(batch["rows"])) for batch in batches])

    def _mismatched(self, parts: Any, first: Any) -> Any:
        return [_rows(len(part)) for part in parts]

    def _prepare_inputs(self, batch: Any) -> Any:
        """The batch arrives on the device."""
        return ones(_NAMES, batch["rows"], self._width)

    def new_scores(self) -> Any:
        weights = self.desirable_weight, self.undesirable_weight
        return Verdicts(self.beta, weights, _NO_TOKENS)


_NO_TOKENS = np.zeros(0, dtype=np.int32)


def _rows(count: int) -> dict[str, int]:
    """A batch that is not on the device yet."""
    return {"rows": count}


def _verdicts(rows: int) -> dict[str, Any]:
    good = torch.ones(rows, dtype=torch.bool)
    return {"label": good, "rows": [Tagged(_NO_TOKENS, _NO_TOKENS, True)] * rows}
