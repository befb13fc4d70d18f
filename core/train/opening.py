"""What a run is, as it begins: `run.json`, and the first lines of its log."""

import platform
import sys
from collections.abc import Iterator
from typing import Any

from core.profile import Profile, model_path
from core.study.files import RunInfo, TrialTask
from core.train.checkpoints import Beginning
from core.train.data.batches import Examples
from core.train.data.templates.fit import note
from core.train.model import adapter
from core.train.model.trainable import count
from core.train.plan import Plan
from core.train.precision import Numbers
from core.train.resumption import told
from core.train.schedule import describe

_COMPARED = ("rm", "dpo")
"""Stages that compare two answers."""
_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "tokenizers")


def run_info(
    task: TrialTask,
    plan: Plan,
    model: Any,
    examples: Examples,
    numbers: Numbers,
    beginning: Beginning,
    seconds: float,
) -> RunInfo:
    """What is known when the first update begins; `seconds` is how long that took."""
    trainable, parameters = count(model)
    return RunInfo(
        attempt=task.attempt,
        total_steps=plan.total_steps,
        full_steps=plan.full_steps,
        steps_per_epoch=float(plan.steps_per_epoch),
        train_rows=examples.train_rows,
        eval_rows=examples.eval_rows,
        dropped_rows=examples.dropped,
        trainable_parameters=trainable,
        parameters=parameters,
        precision=numbers.name,
        device=_device_name(task.device),
        versions=_versions(),
        startup_seconds=round(seconds, 3),
        longest_row=examples.train.longest or None,
        longest_eval_row=examples.evaluation.longest or None,
        rung_step=plan.rung_step,
        warmup_steps=plan.warmup_steps,
        epoch_tokens=int(examples.train.tokens.sum()),
        changed={change.key: str(change) for change in beginning.changes},
    )


def opening_lines(
    profile: Profile,
    task: TrialTask,
    plan: Plan,
    run: RunInfo,
    beginning: Beginning,
    tokenizer: Any,
) -> Iterator[str]:
    """What is about to be trained, in lines for the log."""
    method, bits = profile.method.finetuning_type, profile.model.quantization_bit
    yield f"model {model_path(profile)}, {method}" + (f", {bits} bits" if bits else "")
    trainable, parameters = run.trainable_parameters, run.parameters
    yield f"{trainable:,} of {parameters:,} parameters train ({100 * trainable / parameters:.2f} %)"
    why = "nothing to learn within cutoff_len" + ", or equal answers" * (
        profile.method.stage in _COMPARED
    )
    yield (
        f"{run.train_rows:,} rows to train on, {run.eval_rows:,} to evaluate on, {run.dropped_rows:,} dropped ({why})"
    )
    taken = note(profile.model.template, tokenizer)
    if taken is not None and profile.method.stage != "pt":
        yield taken
    yield from describe(profile.train, task, plan, beginning.probe_end)
    for line in (adapter.describe(profile), *told(beginning.changes)):
        if line is not None:
            yield line
    if beginning.untold:
        yield "its checkpoint does not tell which settings made it: they are taken to be these"


def _device_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(0)) if device == "cuda" else "CPU"


def _versions() -> dict[str, str]:
    """The versions of the libraries that were loaded."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            versions[name] = str(module.__version__)
    return versions
