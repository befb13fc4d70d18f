"""The dry run against published measurements of a Tesla T4: python -m bench memory t4 [--csv FILE] [--config NAME=FILE]

The runs are another program's (fitcheck): LoRA on the attention's projections, weights in fp16 or nf4 without double
quantisation, gradient checkpointing, AdamW, no clipping and no autocast, and the model's output alive through the
backward pass. So its recipe is made here of the same parts that a proof of ours is made of.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from bench.memory.goal import reached
from bench.memory.published import shape as shape_of
from core.dryrun.cuda import cuda_semantics, transients
from core.dryrun.masks import assumed_masks
from core.dryrun.memo import Memo
from core.dryrun.model import build
from core.dryrun.prove import fake_mode
from core.dryrun.quantized import import_bitsandbytes
from core.dryrun.steps import Recipe, Shape, run
from core.dryrun.summary import Demand, Peak, demand, peak
from core.dryrun.tracker import Tracker
from core.memory.allocator import ROUND
from core.memory.estimate.context import cublas_workspace
from core.memory.forecast import MIB, Target
from core.profile import Profile, loads
from core.train.memory.checkpointing import checkpoint_activations
from core.train.precision import Numbers

MEASURED = Path(__file__).resolve().parents[2] / "tests" / "data" / "gpu-memory-t4.csv"
TOTAL = 15360 * MIB
T4 = Target(kind="cuda", capability=(7, 5), total=TOTAL, free=TOTAL)
BITS = {"none": None, "fp16": None, "nf4": 4, "fp4": 4, "4bit": 4, "int8": 8, "8bit": 8}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run; sizes are MiB."""

    model: str
    batch: int
    length: int
    attention: str
    bits: int | None
    """What the weights are held in; None for fp16."""
    rank: int
    allocated: float
    reserved: float
    forward: float
    backward: float
    optimizer: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the dry run says of one."""

    peak: Peak
    demand: Demand


def read(file: Path) -> list[Row]:
    """The rows of a table of measurements; lines that begin with # are notes."""
    with file.open(newline="") as lines:
        table = csv.DictReader(line for line in lines if not line.startswith("#"))
        return [
            Row(
                row["model"],
                int(row["batch"]),
                int(row["seq"]),
                row["attention"],
                BITS[row["quant"].lower()],
                int(row["lora_r"]),
                *(
                    float(row[f"{name}_mib"])
                    for name in (
                        "peak_allocated", "peak_reserved", "forward_peak", "backward_peak",
                        "optimizer_peak",
                    )
                ),
            )
            for row in table
        ]  # fmt: skip


def simulate(row: Row, document: dict[str, Any]) -> Simulated:
    """The dry run of a row's recipe."""
    from transformers import AutoConfig

    import_bitsandbytes()
    settings = dict(document)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    config.use_cache = False
    half = Numbers("fp16", torch.float16, torch.float16, torch.float32)
    with (
        fake_mode() as mode,
        assumed_masks(padded=False),
        cuda_semantics(T4.assumed_capability),
        _repeated(),
    ):
        tracker = Tracker(transients(), config.vocab_size, ROUND, Memo(mode).run)
        tracker.begin("load", 0)
        built = build(config, _profile(row), half, torch.float16, tracker, cuda=True, total=TOTAL)
        with tracker:
            model = _adapted(built.model, row)
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=1e-4, foreach=True)
        recipe = Recipe(max_grad_norm=None, keep_outputs=True, workspace=cublas_workspace(T4))
        shape = Shape(row.batch, row.length)
        # An output that is kept goes when the next forward begins: not all of a pass is over with it.
        run(model, optimizer, shape, recipe, tracker, in_full=True)
    return Simulated(peak(tracker), demand(tracker, expandable=False))


def _profile(row: Row) -> Profile:
    return loads('[model]\nmodel_name_or_path = "-"\n[data]\ndataset = "-"\n').with_changes(
        {
            "model.quantization_bit": row.bits,
            "model.double_quantization": False,
            "model.attn": row.attention,
        }
    )


def _adapted(model: Any, row: Row) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if row.bits:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    adapters = LoraConfig(
        r=row.rank, lora_alpha=2 * row.rank, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, adapters)
    checkpoint_activations(model)
    model.enable_input_require_grads()
    return model


@contextmanager
def _repeated() -> Iterator[None]:
    """transformers of then repeated keys and values for each query head before PyTorch's attention."""
    from transformers.integrations import sdpa_attention

    before = sdpa_attention.use_gqa_in_sdpa
    sdpa_attention.use_gqa_in_sdpa = lambda *_: False
    try:
        yield
    finally:
        sdpa_attention.use_gqa_in_sdpa = before


def main(arguments: list[str]) -> int:
    """Print each row's errors and their means; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench memory t4")
    parser.add_argument("--csv", type=Path, default=MEASURED)
    parser.add_argument("--config", action="append", default=[], metavar="NAME=FILE")
    given = parser.parse_args(arguments)
    configs = {
        name: json.loads(Path(file).read_text())
        for name, _, file in (text.partition("=") for text in given.config)
    }
    rows = read(given.csv)
    errors: dict[str, list[float]] = {}
    print(f"{'run':<44}{'measured':>10}{'dry run':>10}  errors in % (names below)")
    for row in rows:
        found = simulate(row, configs.get(row.model) or shape_of(row.model))
        print(_line(row, found, errors), flush=True)
    for name, values in errors.items():
        sizes = [abs(value) for value in values]
        print(
            f"{name:<12} mean {mean(sizes):5.2f} %  worst {max(sizes):5.2f} %  bias {mean(values):+5.2f} %"
        )
    return 0 if all(_goals(errors)) else 1


def _goals(errors: dict[str, list[float]]) -> list[bool]:
    allocated = [abs(value) for value in errors["allocated"]]
    reserved = [abs(value) for value in errors["reserved"]]
    return [
        reached("allocated, mean error", mean(allocated), 1.0, "%"),
        reached("allocated, worst error", max(allocated), 2.5, "%"),
        reached("reserved, mean error", mean(reserved), 5.0, "%"),
    ]


def _line(row: Row, found: Simulated, errors: dict[str, list[float]]) -> str:
    pairs = {
        "allocated": (found.peak.size, row.allocated),
        "blocks": (found.demand.allocated, row.allocated),
        "reserved": (found.demand.reserved, row.reserved),
        "forward": (found.peak.moments["forward"], row.forward),
        "backward": (found.peak.moments["backward"], row.backward),
        "optimizer": (found.peak.moments["optimizer"], row.optimizer),
    }
    said = []
    for name, (size, measured) in pairs.items():
        error = 100 * (size / MIB / measured - 1)
        errors.setdefault(name, []).append(error)
        said.append(f"{name} {error:+.2f}")
    kind = f"{row.bits} bits" if row.bits else "fp16"
    run_name = f"{row.model} {row.batch}x{row.length} {row.attention} {kind} r{row.rank}"
    return f"{run_name:<44}{row.allocated:>10.0f}{found.peak.size / MIB:>10.0f}  {' '.join(said)}"
