"""A recipe through the real command: each step from the weights of the one before it, whatever is killed meanwhile."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.profile import load
from core.study.metrics import read_points
from tests.e2e.place import Place, until
from tests.e2e.test_survival import processes

TWO = """
[profile]
name = "two"
[recipe]
keep_models = true
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
cutoff_len = 64
max_samples = 60
val_size = 8
[train]
per_device_train_batch_size = 4
gradient_accumulation_steps = 1
precision = "fp32"
lr_scheduler_type = "constant"
warmup_ratio = 0.0
[resources]
devices = "cpu"
parallel = 2
[[step]]
name = "general"
[step.method]
finetuning_type = "full"
[step.train]
max_steps = 5
[step.search]
strategy = "grid"
[step.search.space]
learning_rate = [1e-4, 2e-3]
[[step]]
name = "task"
[step.data]
dataset = "rows.jsonl"
val_size = 0.0
[step.method]
lora_rank = 4
[step.train]
learning_rate = 1e-3
max_steps = 4
"""

BASE = Path(__file__).parents[2] / "core/assets/demo/model"
ROWS = "".join(
    (BASE.parent / "instructions.jsonl").read_text("utf-8").splitlines(keepends=True)[:32]
)
"""Some of the demo's rows: the second step's loss is compared with the first one's."""

pytestmark = pytest.mark.xdist_group("heavy")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {name: tensor.float() for name, tensor in load_file(file).items()}
    return found


def first_loss(study: Path, trial: int) -> float:
    points = read_points(study / "trials" / f"{trial:04d}" / "metrics.jsonl")
    return next(p.loss for p in points if p.loss is not None)


def end(role: str, folder: Path) -> None:
    for process in processes(role, folder):
        process.kill()
        process.wait(120)


def test_a_recipe_goes_from_step_to_step_though_its_engines_are_killed(place: Place) -> None:
    (place.folder / "two.toml").write_text(TWO)
    data = place.folder / "rows.jsonl"
    data.write_text(ROWS)
    out = place.must("check", "two.toml")
    assert "A recipe of 2 steps" in out and "learning_rate: 2 trials" in out
    place.must(
        "run", "two.toml", "--detach", "--study", "r", "--set", "step.task.train.max_steps=3"
    )
    # Of what becomes wrong after the start, a step can only tell when it comes to it.
    data.write_text('{"instruction": "a", "answer": "b"}\n')
    recipe = place.folder / "r"
    first, second = recipe / "01-general", recipe / "02-task"

    until(lambda: bool(processes("_worker", first)), "the first step trains")
    end("_daemon", first)
    assert not second.exists(), "nothing goes on before the first step has ended"
    status = place.json("status", "r")
    assert status["status"] == "running" and status["step"] == 1
    assert [s["status"] for s in status["steps"]] == ["engine not running", "waits"]

    ran = place.run("attach", "r", "--headless")
    assert ran.returncode == 1, "the rows of the second step have a key that nobody knows"
    assert "Step 2 of 2 (task) has no result" in ran.stdout and "tunedeck retry" in ran.stdout
    data.write_text(ROWS)
    place.must("retry", "r", "1")
    until(lambda: place.json("status", "r")["status"] == "done", "it goes on by itself")
    assert [s["status"] for s in place.json("status", "r")["steps"]] == ["done", "done"]

    trials = {s["step"]: {t["number"]: t for t in s["trials"]} for s in place.json("trials", "r")}
    assert [t["kind"] for t in trials[1].values()] == ["probe", "probe", "full"]
    assert trials[1][3]["settings"] == {"learning_rate": 2e-3}
    assert [(t["kind"], t["step"]) for t in trials[2].values()] == [("full", 3)]

    tuned, merged = weights(first / "trials/0003/output"), weights(first / "model")
    base = weights(BASE)
    name = "model.layers.0.mlp.down_proj.weight"
    moved = (tuned[name] - base[name]).abs().mean()
    assert (merged[name] - tuned[name]).abs().mean() < 0.05 * moved, "the training's own weights"
    result = weights(second / "model")
    assert (result[name] - tuned[name]).abs().mean() < (result[name] - base[name]).abs().mean()
    assert first_loss(second, 1) < first_loss(first, 1) - 0.2, "the second step began where the first ended"  # fmt: skip

    assert "A recipe of 2 steps" in place.must("check", "r/recipe.toml"), "it can be run again"


def test_from_plain_text_to_a_policy_that_learns_from_its_own_reward_model(place: Place) -> None:
    sets = [
        "model.model_name_or_path=demo", "resources.devices=cpu", "data.cutoff_len=64", "data.max_samples=16",
        "data.val_size=4", "train.max_steps=2", "train.gradient_accumulation_steps=1",
        "step.align.generation.max_new_tokens=6", "step.align.alignment.ppo_epochs=1",
    ]  # fmt: skip
    options = [word for text in sets for word in ("--set", text)]
    place.must("train", "recipe-align", "--detach", "--study", "r", *options)
    until(
        lambda: (place.folder / "r/03-reward/journal.jsonl").exists(),
        "the reward model's step",
        240,
    )
    # No further step starts, as after `tunedeck pause` between two of them.
    (place.folder / "r/hold").write_text("paused")
    until(lambda: place.json("status", "r")["steps"][2]["status"] == "done", "the reward model")
    until(lambda: not processes("_daemon", place.folder / "r/03-reward"), "the end of its engine")
    (place.folder / "r").rename(place.folder / "moved")
    place.must("resume", "moved")
    place.must("attach", "moved", "--headless")
    status = place.json("status", "moved")
    assert status["status"] == "done"
    assert [(s["stage"], s["from"], s["status"]) for s in status["steps"]] == [
        ("pt", None, "done"),
        ("sft", "text", "done"),
        ("rm", "chat", "done"),
        ("ppo", "chat", "done"),
    ]
    recipe = place.folder / "moved"
    profile = load(recipe / "04-align" / "profile.toml")
    assert profile.model.model_name_or_path == str(recipe / "02-chat" / "model")
    assert profile.alignment.reward_model == str(recipe / "03-reward/trials/0001/output")
    points = read_points(recipe / "04-align/trials/0001/metrics.jsonl")
    assert any("reward" in (p.more or {}) for p in points), "answers were scored"
    chat, result = weights(recipe / "02-chat/model"), weights(recipe / "04-align/model")
    assert chat.keys() == result.keys()
    assert any(not torch.equal(chat[name], result[name]) for name in chat), "and learnt from"
    scored = place.json("eval", "moved/03-reward")
    assert "eval_reward_accuracy" in scored["results"][0]["metrics"], "its base is found as well"


def test_a_recipe_that_is_wrong_somewhere_starts_nothing(place: Place) -> None:
    (place.folder / "two.toml").write_text(TWO.replace("lora_rank = 4", "lora_rnk = 4"))
    ran = place.run("run", "two.toml", "--headless", "--study", "r")
    assert ran.returncode == 1 and not (place.folder / "r").exists()
    assert "line 38: step.task.method.lora_rnk: is not known (did you mean method.lora_rank" in ran.stderr  # fmt: skip
    ran = place.run("run", "two.toml", "--set", "step.task.train.lr=1")
    assert ran.returncode == 2 and "--set" in ran.stderr
