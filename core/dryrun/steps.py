"""Two updates and an evaluation as the worker's Trainer runs them: what it keeps alive, and until when.

The order follows Trainer._run_epoch, training_step and compute_loss of transformers 5.23, Accelerator.prepare_model
and backward of accelerate 1.14, and core.train.stages.sft; what other stages do between is `judged`.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from core.dryrun.repeat import repeat_passes
from core.dryrun.tracker import Tracker
from core.train.data.examples import IGNORED

UPDATES = 2
"""The first makes the optimizer's states; the second has them from its start."""
MICRO_BATCHES = 2
"""From the second on, gradients are there before a batch begins."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large batches are, in rows and tokens a row."""

    batch: int
    length: int
    accumulation: int = 1
    eval_batch: int = 0
    eval_length: int = 0
    """0 where nothing is evaluated."""
    packed: bool = False
    """Whether rows to train on are packed and are not to see each other: positions tell them apart, of which
    transformers makes the mask."""
    eval_packed: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """What happens to a batch."""

    autocast: Any = None
    """The type that operations are cast to; None for none."""
    max_grad_norm: float | None = 1.0
    """What gradients are clipped at; 0 for infinity, which the Trainer takes for their norm; None for no clipping."""
    keep_outputs: bool = False
    """Whether the model's output lives on until the next forward, as in a plain loop; the Trainer drops it."""
    workspace: int = 0
    """What cuBLAS takes for each of its handles, in bytes."""


class Work(Protocol):
    """What a stage does its own way in an update and in an evaluation."""

    def batch(self, rows: int, length: int, *, packed: bool) -> dict[str, Any]:
        """A batch on the device, of so many rows of the data."""
        ...

    def learnt(self, batches: Sequence[dict[str, Any]]) -> Any:
        """What the loss of an update with these batches is a mean over."""
        ...

    def begin(self, batches: Sequence[dict[str, Any]]) -> None:
        """What an update does before the first of its batches."""
        ...

    def loss(self, batch: dict[str, Any], learnt: Any) -> Any:
        """The loss of a batch, with gradients."""
        ...

    def end(self) -> None:
        """Drop what was kept from one batch for the next."""
        ...

    def evaluate(self, batch: dict[str, Any]) -> None:
        """Evaluate a batch, without gradients."""
        ...


def run(
    model: Any,
    optimizer: Any,
    shape: Shape,
    recipe: Recipe,
    tracker: Tracker,
    *,
    work: Work | None = None,
    in_full: bool = False,
) -> None:
    """Train for two updates, and evaluate after them; called within a fake mode or, in tests, without. `work` is that
    of stages pt and sft where none is given; `model` is prepared with it.

    The passes of the second update allocate and free what those of the first do: they are written into the log anew,
    which takes half the time. With `in_full` they are run.
    """
    loop = _Loop(model, optimizer, shape, recipe, tracker, work or Tokens(model, recipe))
    with tracker:
        loop.train(in_full)
        if shape.eval_length:
            loop.evaluate()


class _Loop:
    def __init__(
        self,
        model: Any,
        optimizer: Any,
        shape: Shape,
        recipe: Recipe,
        tracker: Tracker,
        work: Work,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._shape = shape
        self._recipe = recipe
        self._tracker = tracker
        self._work = work
        self._handles = 0
        self._batches: list[dict[str, Any]] = []
        self._total = torch.zeros(())

    def train(self, in_full: bool) -> None:
        self._model.train()
        events = self._tracker.events
        start = len(events)
        self._passes(1)
        end = len(events)
        self._step(1)
        if in_full:
            self._model.zero_grad()
            self._passes(2)
        second = len(events)
        self._step(2)
        release = len(events)
        self._model.zero_grad()
        if not in_full:
            repeat_passes(self._tracker, (start, end), second, release)

    def _passes(self, update: int) -> None:
        """The forward and backward passes of an update."""
        shape, work = self._shape, self._work
        self._tracker.begin("forward", update)
        self._batches = [
            work.batch(shape.batch, shape.length, packed=shape.packed)
            for _ in range(shape.accumulation)
        ]
        learnt = work.learnt(self._batches)
        self._take_workspace(1)
        work.begin(self._batches)
        for number, batch in enumerate(self._batches[:MICRO_BATCHES]):
            if number:
                self._tracker.begin("forward", update)
            self._total += self._micro_batch(batch, learnt, update)

    def _micro_batch(self, batch: dict[str, Any], learnt: Any, update: int) -> Any:
        loss = self._work.loss(batch, learnt)
        self._tracker.begin("backward", update)
        self._take_workspace(2)
        loss.backward()
        self._name_gradients()
        return loss.detach()

    def _step(self, update: int) -> None:
        tracker = self._tracker
        tracker.begin("optimizer", update)
        trained = [p for p in self._model.parameters() if p.requires_grad]
        limit = self._recipe.max_grad_norm
        norm = None
        if limit is not None:
            norm = torch.nn.utils.clip_grad_norm_(
                trained, limit or float("inf"), error_if_nonfinite=False
            )
        self._optimizer.step()
        del norm
        for state in self._optimizer.state.values():
            held = [value for value in state.values() if isinstance(value, torch.Tensor)]
            tracker.adopt(held, "optimizer")

    def evaluate(self) -> None:
        self._work.end()
        self._tracker.begin("eval", UPDATES)
        self._model.eval()
        with torch.no_grad():
            shape = self._shape
            batch = self._work.batch(shape.eval_batch, shape.eval_length, packed=shape.eval_packed)
            self._work.evaluate(batch)

    def _name_gradients(self) -> None:
        gradients = (p.grad for p in self._model.parameters() if p.grad is not None)
        self._tracker.adopt(gradients, "gradients")

    def _take_workspace(self, handles: int) -> None:
        """cuBLAS takes its workspace with the first product that a thread asks for, and keeps it."""
        if self._handles < handles and self._recipe.workspace:
            self._tracker.allocate(self._recipe.workspace, "workspace")
        self._handles = max(self._handles, handles)


class Tokens:
    """The work of stages pt and sft: the cross-entropy of the tokens that are learnt."""

    def __init__(self, model: Any, recipe: Recipe) -> None:
        """Prepares `model`."""
        self._forward = prepared(model, recipe.autocast)
        self._counts = _accepts_count(model)
        self._keeps = recipe.keep_outputs
        self._kept: Any = None

    def batch(self, rows: int, length: int, *, packed: bool) -> dict[str, Any]:
        """As of Work."""
        third = "position_ids" if packed else "attention_mask"
        return ones(("input_ids", third, "labels"), rows, length)

    def learnt(self, batches: Sequence[dict[str, Any]]) -> Any:
        """As of Work: tokens."""
        return sum(batch["labels"][..., 1:].ne(IGNORED).sum() for batch in batches)

    def begin(self, batches: Sequence[dict[str, Any]]) -> None:
        """As of Work: nothing."""

    def loss(self, batch: dict[str, Any], learnt: Any) -> Any:
        """As of Work."""
        self._kept = None
        if self._counts:
            outputs = self._forward(**batch, num_items_in_batch=learnt)
            loss = outputs["loss"]
        else:
            from core.train.stages.sft import token_mean_loss

            inputs = {name: value for name, value in batch.items() if name != "labels"}
            outputs = self._forward(**inputs)
            loss = token_mean_loss(outputs, batch["labels"], num_items_in_batch=learnt)
        if self._keeps:
            self._kept = outputs
        return loss

    def end(self) -> None:
        """As of Work."""
        self._kept = None

    def evaluate(self, batch: dict[str, Any]) -> None:
        """As of Work."""
        self._forward(**batch)


def prepared(model: Any, autocast: Any) -> Callable[..., Any]:
    """The model's forward as accelerate wraps it: with autocast, and what comes out of it in fp32."""
    if autocast is None:
        return model  # type: ignore[no-any-return]
    from accelerate.utils.operations import convert_outputs_to_fp32

    model.forward = convert_outputs_to_fp32(torch.autocast("cpu", dtype=autocast)(model.forward))
    return model  # type: ignore[no-any-return]


def _accepts_count(model: Any) -> bool:
    """Whether the Trainer hands the number of learnt tokens to the model (Trainer.__init__)."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    if hasattr(inner, "accepts_loss_kwargs"):
        return bool(inner.accepts_loss_kwargs)
    parameters = inspect.signature(inner.forward).parameters.values()
    return any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters)


def ones(names: Sequence[str], rows: int, length: int) -> dict[str, Any]:
    """A batch: tensors by their names, of rows × tokens (int64)."""
    return {name: torch.ones(rows, length, dtype=torch.int64) for name in names}
