"""Who imports what: clients, daemon and shim start without torch, and core knows nothing of the dashboard."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "numpy",
    "pyarrow",
    "optuna",
}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that are loaded after `statement` in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["core.engine.daemon", "core.engine.memory.advise", "core.engine.shim", "core.engine.client", "core.engine.results",
     "core.search.samplers", "core.search.propose", "core.missing", "core.rows.first",
     "tui.cli", "tui.app", "tui.follow", "tui.commands.studies", "tui.commands.profiles",
     "tui.screens.configure"],
)  # fmt: skip
def test_clients_daemon_and_shim_load_nothing_heavy(module: str) -> None:
    assert not modules_after(f"import {module}") & HEAVY


@pytest.mark.parametrize("module", ["core.engine.daemon", "core.engine.client", "core.profile"])
def test_core_knows_nothing_of_the_dashboard(module: str) -> None:
    assert not modules_after(f"import {module}") & {"tui", "textual", "rich"}


def test_the_dashboard_opens_without_reading_the_catalogue() -> None:
    assert "pydantic" not in modules_after("import tui.app")


def test_a_shim_loads_no_more_than_it_must() -> None:
    assert not modules_after("import core.engine.shim") & {"pydantic", "asyncio", "psutil", "tui"}


def test_every_module_of_core_is_on_the_right_side_of_the_wall() -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
