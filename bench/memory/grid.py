"""The estimate against the dry run, on a grid of profiles: `python -m bench memory grid [--count N] [--seed N]
[--stages STAGE,…]`.

The profiles are drawn at random, from a seed, so that nothing of what the formulas know decides what they are tried on:
shapes from 0.1 to 70 billion parameters × methods × checkpointing × lengths × batches × precisions × optimizers ×
attention × chunked losses × accumulation × quantisation.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.memory.goal import reached
from bench.memory.shapes import SHAPES
from core.memory.architecture import find_architecture
from core.memory.closed_form import estimate
from core.memory.forecast import GIB, Forecast, Lengths, Target
from core.memory.prover import ProofError, Prover
from core.profile import Profile, ProfileError, from_document

TARGETS = {
    "T4": Target(kind="cuda", name="T4", capability=(7, 5), total=4096 * GIB, free=4096 * GIB),
    "A100": Target(kind="cuda", name="A100", capability=(8, 0), total=4096 * GIB, free=4096 * GIB),
    "H100": Target(kind="cuda", name="H100", capability=(9, 0), total=4096 * GIB, free=4096 * GIB),
}
"""Kinds of GPUs, with more memory than any profile needs: what a profile takes is asked for, not whether it fits."""
WITHIN = 0.05
"""The error that the estimate may have."""
WANTED = 0.95
"""The share of profiles that it must not exceed it on."""


_USUAL = ("None", "auto", "False", "1", "0.0")
"""Values that go without saying in a case's name."""


@dataclass(frozen=True, slots=True)
class Case:
    """A profile to be forecast, with what it is called in the table."""

    name: str
    profile: Profile
    target: Target


def cases(count: int, seed: int, folder: Path, stages: Sequence[str] = ("sft",)) -> Iterator[Case]:
    """`count` cases of `stages`, in turn, drawn with `seed`; the shapes' config.json are written to `folder`."""
    for name, config in SHAPES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    draw = random.Random(seed)
    names = list(SHAPES)
    made = 0
    while made < count:
        case = _draw_case(draw, names[made % len(names)], folder, stages[made % len(stages)])
        if case is not None:
            made += 1
            yield case


def _draw_case(draw: random.Random, shape: str, folder: Path, stage: str) -> Case | None:
    """One case; None where the values that were drawn do not go together."""
    device = draw.choice(list(TARGETS))
    method, train = _draw_method(draw), _draw_training(draw)
    model: dict[str, Any] = {}
    if method["finetuning_type"] == "lora":
        model["quantization_bit"] = draw.choice([None, None, 4, 4, 8])
        model["double_quantization"] = draw.random() < 0.7
    model["attn"] = draw.choice(["auto", "auto", "auto", "sdpa", "eager", "flash_attention_2"])
    if device == "T4":
        train["precision"] = draw.choice(["fp16", "fp16", "fp32"])
        method.pop("adapter_precision", None)
        if model["attn"] == "flash_attention_2":
            model["attn"] = "sdpa"
    length = draw.choice([256, 512, 1024, 2048, 4096])
    alignment: dict[str, Any] = {}
    if stage == "dpo":
        alignment["pref_loss"] = draw.choice(["sigmoid", "sigmoid", "orpo"])
    if stage != "sft":
        method["stage"] = stage
        train.pop("loss_chunk_tokens")
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": str(folder / shape)} | _given(model),
        "method": _given(method),
        "alignment": alignment,
        "data": {"dataset": "demo", "cutoff_len": length},
        "train": _given(train),
    }
    try:
        profile = from_document(document).as_training()
    except ProfileError:
        return None
    changed = {**method, **alignment, **model, **train, "length": length}
    text = " ".join(f"{k}={v}" for k, v in changed.items() if str(v) not in _USUAL)
    return Case(f"{shape} {device} {text}", profile, TARGETS[device])


def _draw_method(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(["lora", "lora", "lora", "full", "full", "freeze"])
    if kind == "freeze":
        return {"finetuning_type": kind, "freeze_trainable_layers": draw.choice([2, 4, 8])}
    if kind == "full":
        return {"finetuning_type": kind}
    return {
        "finetuning_type": kind,
        "lora_rank": draw.choice([8, 16, 64]),
        "lora_dropout": draw.choice([0.0, 0.0, 0.05]),
        "use_dora": draw.random() < 0.1,
        "adapter_precision": draw.choice(["auto", "auto", "bf16"]),
    }


def _draw_training(draw: random.Random) -> dict[str, Any]:
    optimizers = [
        "adamw_torch",
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_8bit",
        "paged_adamw_8bit",
        "adafactor",
    ]
    return {
        "per_device_train_batch_size": draw.choice([1, 1, 2, 4]),
        "gradient_accumulation_steps": draw.choice([1, 1, 4]),
        "gradient_checkpointing": draw.random() < 0.6,
        "gradient_checkpointing_every": draw.choice([1, 1, 1, 2]),
        "precision": draw.choice(["auto", "auto", "pure_bf16", "fp32"]),
        "optim": draw.choice(optimizers),
        "loss_chunk_tokens": draw.choice([None, None, None, 256, 1024]),
        "offload_optimizer": draw.random() < 0.1,
        "offload_activations": draw.random() < 0.1,
    }


def _given(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Row:
    """A case with both answers."""

    case: Case
    estimated: Forecast
    proven: Forecast
    seconds: float
    """Of a call of the closed form."""

    @property
    def error(self) -> float:
        """Of the peak allocated, as a share."""
        return self.estimated.allocated / self.proven.allocated - 1

    @property
    def needed_error(self) -> float:
        """Of the smallest capacity, as a share."""
        return self.estimated.needed / self.proven.needed - 1


def compare(case: Case, prover: Prover) -> Row:
    """Ask both.

    Raises:
        ProofError: the case cannot be simulated.
    """
    lengths = Lengths.bound(case.profile)
    architecture = find_architecture(case.profile)
    estimated = estimate(case.profile, architecture, case.target, lengths)
    begin = time.perf_counter()
    for _ in range(5):
        estimate(case.profile, architecture, case.target, lengths)
    seconds = (time.perf_counter() - begin) / 5
    return Row(case, estimated, prover.prove(case.profile, case.target, lengths), seconds)


def summary(rows: Sequence[Row]) -> list[str]:
    """The figures, as lines."""
    errors = [abs(row.error) for row in rows]
    needs = [abs(row.needed_error) for row in rows]
    times = sorted(row.seconds * 1000 for row in rows)
    within = sum(e <= WITHIN for e in errors) / len(errors)
    return [
        f"{len(rows)} profiles: {within:.1%} within {WITHIN:.0%} of the dry run's peak",
        f"error of peak allocated: mean {statistics.mean(errors):.2%}, worst {max(errors):.2%}",
        f"error of the smallest capacity: mean {statistics.mean(needs):.2%}, worst {max(needs):.2%}",
        f"a call of the closed form: median {statistics.median(times):.2f} ms, slowest {times[-1]:.2f} ms",
    ]


def line(row: Row) -> str:
    """A row of the table."""
    return (
        f"{row.error:+7.2%} {row.needed_error:+7.2%} {row.estimated.allocated / GIB:9.2f} "
        f"{row.proven.allocated / GIB:9.2f} {row.estimated.peak:>9}/{row.proven.peak:<9} {row.case.name}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the figures; 1 where fewer profiles than wanted are within the bound."""
    parser = argparse.ArgumentParser(description="The estimate against the dry run.")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=lambda text: text.split(","), default=["sft"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    rows = []
    print("allocated needed   estimate   dry run GiB  peak in")
    with tempfile.TemporaryDirectory() as folder, Prover() as prover:
        for case in cases(given.count, given.seed, Path(folder), given.stages):
            try:
                rows.append(compare(case, prover))
            except ProofError as error:
                print(f"not simulated: {case.name}: {error}")
                continue
            print(line(rows[-1]), flush=True)
    figures = summary(rows)
    print("\n".join(figures))
    if given.json:
        given.json.write_text(json.dumps([{"case": r.case.name, "error": r.error} for r in rows]))
    beyond = sum(abs(r.error) > WITHIN for r in rows) / len(rows)
    good = [
        reached(
            f"profiles beyond {WITHIN:.0%} of the dry run", 100 * beyond, 100 * (1 - WANTED), "%"
        ),
        reached("a call, median", 1000 * statistics.median(r.seconds for r in rows), 2.0, "ms"),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
