"""The search against a full grid of the same size, for real: SmolLM2-135M-Instruct, LoRA, on this CPU.

    python -m bench search-real

Both run the same trials through the same engine; the grid runs each to its end, the search stops them at rungs. Goal:
the search's winner is the grid's or ties with it. The share of the grid's steps that it took is printed beside it.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.worker import DATA, ROOT, gguf
from core.engine.standing import ranking
from core.search.ranking import Ranked
from core.study.store import StudyReader

STEPS = 24
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RANKS = (4, 16)

PROFILE = """
[profile]
name = "search-real"
[model]
model_name_or_path = "{model}"
[method]
finetuning_type = "lora"
lora_rank = 8
[data]
dataset = "{data}"
cutoff_len = 64
val_size = 16
[train]
learning_rate = 1e-4
per_device_train_batch_size = 2
gradient_accumulation_steps = 1
per_device_eval_batch_size = 8
max_steps = {steps}
eval_steps = {half}
warmup_ratio = 0.05
[resources]
devices = "cpu"
parallel = 2
[search]
strategy = "grid"
stopping = "{stopping}"
trials = {trials}
portfolio = false
budget = 1.0
[search.space]
learning_rate = {rates}
lora_rank = {ranks}
"""


@dataclass(frozen=True)
class Searched:
    """What a study found and what it took."""

    ranked: list[Ranked]
    settings: dict[int, str]
    """Of each trial, in words."""
    steps: int
    seconds: float

    @property
    def winner(self) -> int:
        """The trial that was ranked first."""
        return next(r.trial for r in self.ranked if r.place == 1)

    def value(self, trial: int) -> float:
        """What a trial came to, nats per token."""
        return next(r.value for r in self.ranked if r.trial == trial and r.value is not None)


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; 1 where a goal is missed."""
    with tempfile.TemporaryDirectory(prefix="tunedeck-bench-") as folder:
        root = Path(folder)
        grid = search(root, "none")
        chosen = search(root, "halving")
    for name, found in (("full grid", grid), ("halving", chosen)):
        best = found.winner
        print(
            f"{name}: {len(found.settings)} trials of {STEPS} steps, {found.steps} steps in all, "
            f"{found.seconds:.0f} s; winner {found.settings[best]}, eval loss {found.value(best):.4f}"
        )
    place = next(r for r in grid.ranked if r.trial == chosen.winner)
    behind = grid.value(chosen.winner) - grid.value(grid.winner)
    if chosen.winner == grid.winner:
        verdict = "the same winner"
    else:
        verdict = f"{'a tie' if place.group == 1 else 'another winner'}, {behind:+.4f} nats"
    print(f"{verdict}: place {place.place} of the grid (goal: the same or a tie)")
    print(f"the search's steps: {100 * chosen.steps / grid.steps:.1f} % of the grid's")
    return int(place.group != 1)


def search(root: Path, stopping: str) -> Searched:
    """Run the search of the profile with one way of stopping trials."""
    profile, study = root / f"{stopping}.toml", root / stopping
    profile.write_text(
        PROFILE.format(
            model=gguf(), data=DATA, steps=STEPS, half=STEPS // 2, stopping=stopping,
            trials=len(RATES) * len(RANKS), rates=list(RATES), ranks=list(RANKS),
        )
    )  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "XDG_STATE_HOME": str(root / "state"),
           "TUNEDECK_LEASE_DIR": str(root / "leases")}  # fmt: skip
    command = [sys.executable, "-P", str(ROOT / "tunedeck.py"), "run", str(profile), "--headless"]
    began = time.perf_counter()
    ran = subprocess.run(
        [*command, "--study", str(study)], env=env, cwd=root, capture_output=True, text=True, check=False
    )  # fmt: skip
    if ran.returncode:
        raise SystemExit(f"the search ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
    seconds = time.perf_counter() - began
    state = StudyReader(study).state
    if state.status != "finished":
        raise SystemExit(f"the search is {state.status} and not finished; {state.reason}")
    words = {
        n: ", ".join(f"{k} {v}" for k, v in t.settings.items()) for n, t in state.trials.items()
    }
    steps = sum(trial.step for trial in state.trials.values())
    return Searched(ranking(state), words, steps, seconds)
