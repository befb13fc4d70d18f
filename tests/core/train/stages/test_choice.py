"""Which object knows what a stage does its own way."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.params import MethodTable
from core.profile import loads
from core.train.stages.choice import stage_of

ROOT = Path(__file__).parents[4]
BASE = (
    '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "rows.jsonl"\n[method]\nstage = "{}"\n'
)
STAGES = {
    "pt": "SftStage",
    "sft": "SftStage",
    "rm": "RewardStage",
    "dpo": "DpoStage",
    "kto": "KtoStage",
    "ppo": "PpoStage",
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_one(stage: str) -> None:
    more = '[alignment]\nreward_model = "scores"\n' if stage == "ppo" else ""
    found = stage_of(loads(BASE.format(stage) + more))
    assert type(found).__name__ == STAGES[stage]
    for method in ("load_model", "arguments", "collator", "trainer", "save"):
        assert callable(getattr(found, method))


def test_no_stage_is_left_out() -> None:
    known = MethodTable.model_json_schema()["properties"]["stage"]["enum"]
    assert set(known) == set(STAGES)


def test_supervised_fine_tuning_starts_without_trl_and_datasets() -> None:
    code = (
        "import sys, core.train.stages.choice as c, core.profile as p, core.train.startup as s\n"
        f"profile = p.loads({BASE.format('sft')!r})\n"
        "s.hide_unused(profile); c.stage_of(profile)\n"
        "print(sorted(n for n in ('trl', 'datasets', 'pandas', 'bitsandbytes') if sys.modules.get(n)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    assert ran.stdout.strip() == "[]"
