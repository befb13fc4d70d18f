"""Tokens a second and model FLOPs utilisation of LoRA trainings on a GPU, through the worker itself.

`python -m bench train --cuda`; `measure` is what scripts/gpu_check.py calls. Models have random weights and the shapes
of well-known ones: the time of a step does not depend on what weights say.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.train.rows import write_rows
from bench.worker import ROOT
from core.profile import DEMO_MODEL, from_document, save
from core.study.files import RunInfo, TrialTask, WorkerReport, read_record, write_record
from core.study.metrics import read_points
from core.study.store import TrialFolder

LENGTH, STEPS, ROWS = 2048, 24, 12_000

BUILD = """
import json, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
shape, folder = json.loads(sys.argv[1]), sys.argv[2]
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    model = LlamaForCausalLM(LlamaConfig(**shape))
model.save_pretrained(folder)
print(sum(p.numel() for p in model.parameters()))
"""

PEAKS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""Dense bf16 products with fp32 sums, operations a second, by the makers' data sheets."""


@dataclass(frozen=True, slots=True)
class Model:
    """A shape, and how it is trained."""

    name: str
    shape: dict[str, Any]
    batch: int
    checkpointing: bool


MODELS = (
    Model(
        "0.5B",
        {
            "vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 26,
            "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 4096,
        },
        8,
        False,
    ),
    Model(
        "7B",
        {
            "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        },
        4,
        True,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Speed:
    """What a training came to."""

    model: str
    parameters: int
    tokens_per_s: float
    utilisation: float | None
    """Of the GPU's peak, by what the model needs: what is computed again for gradient checkpointing does not count.
    None where the GPU's peak is not known."""
    peak_memory: int | None


def operations(shape: dict[str, Any], parameters: int) -> float:
    """Floating-point operations that LoRA needs for a token: two for each weight forward, and two backward, as the
    weights themselves have no gradients (PaLM, arXiv 2204.02311, appendix B, less those). Embeddings are looked up, and
    attention within rows of some hundred tokens is left out: it is about a hundredth."""
    embeddings: int = shape["vocab_size"] * shape["hidden_size"]
    return 4.0 * (parameters - embeddings)


def main() -> int:
    """Print the figures; 2 where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        print("no GPU: PyTorch sees none, so that nothing was measured")
        return 2
    with tempfile.TemporaryDirectory(prefix="tunedeck-bench-") as folder:
        for model in MODELS:
            speed = measure(Path(folder), model)
            share = "unknown" if speed.utilisation is None else f"{speed.utilisation:.1%}"
            print(
                f"{speed.model}, LoRA, bf16, packed to {LENGTH}, batch {model.batch}: {speed.tokens_per_s:,.0f} "
                f"tokens/s, MFU {share}, peak {(speed.peak_memory or 0) / 2**30:.1f} GiB on "
                f"{torch.cuda.get_device_name(0)}",
                flush=True,
            )
            print(json.dumps(asdict(speed)), flush=True)
    return 0


def measure(
    root: Path,
    model: Model,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Speed:
    """Build the model below `root`, train it there, and remove it: in processes with this `environment` (by default
    this one's), within so many `seconds`.

    Raises:
        RuntimeError: it could not be built, did not train (the message has the end of its log) or not in time.
    """
    folder = root / model.name
    folder.mkdir()
    try:
        until = None if seconds is None else time.monotonic() + seconds
        built = subprocess.run(
            [sys.executable, "-c", BUILD, json.dumps(model.shape), str(folder / "model")],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
        )
        if built.returncode != 0:
            raise RuntimeError(f"{model.name} could not be built:\n{built.stderr[-2000:]}")
        for file in DEMO_MODEL.glob("*token*"):
            shutil.copy(file, folder / "model")
        parameters = int(built.stdout.split()[-1])
        left = None if until is None else max(1.0, until - time.monotonic())
        return _train(folder, model, parameters, environment, left)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{model.name} was not done within {seconds:.0f} s") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _train(
    folder: Path,
    model: Model,
    parameters: int,
    environment: Mapping[str, str] | None,
    seconds: float | None,
) -> Speed:
    data = folder / "rows.jsonl"
    write_rows(data, ROWS, 1)
    profile = from_document(
        {
            "model": {"model_name_or_path": str(folder / "model")},
            "data": {"dataset": str(data), "cutoff_len": LENGTH, "packing": True, "val_size": 0},
            "train": {
                "per_device_train_batch_size": model.batch,
                "gradient_accumulation_steps": 1,
                "max_steps": STEPS,
                "logging_steps": 1,
                "precision": "bf16",
                "gradient_checkpointing": model.checkpointing,
            },
        }
    )
    trial = TrialFolder(folder / "trial")
    (folder / "trial").mkdir()
    save(profile, trial.profile)
    write_record(trial.task, TrialTask(1, 1, "probe", 1.0, "cuda"))
    with trial.log.open("wb") as out:
        subprocess.run(
            [sys.executable, "-P", str(ROOT / "tunedeck.py"), "_worker", str(folder / "trial")],
            stdout=out,
            stderr=out,
            check=False,
            env=environment,
            timeout=seconds,
        )
    run, report = read_record(trial.run, RunInfo), read_record(trial.report, WorkerReport)
    points = {p.step: p for p in read_points(trial.metrics) if p.loss is not None}
    if run is None or report is None or len(points) < STEPS:
        raise RuntimeError(f"{model.name} did not train:\n{trial.log.read_text()[-2000:]}")
    # The first updates compile kernels and rehearse.
    first, last = points[STEPS // 3], points[STEPS]
    assert first.tokens is not None and last.tokens is not None
    rate = (last.tokens - first.tokens) / (last.t - first.t)
    peak = next((PEAKS[name] for name in PEAKS if name in run.device), None)
    used = None if peak is None else rate * operations(model.shape, parameters) / peak
    return Speed(model.name, parameters, rate, used, report.peak_memory)
