"""The command starts whatever a user's PYTHONPATH holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """An environment whose PYTHONPATH holds other packages called core and tui."""
    for name in ("core", "tui", "profiles"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name}')")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("start", [["-m", "tunedeck"], ["-P", str(ROOT / "tunedeck.py")]])
def test_other_packages_of_the_same_name_do_not_get_in_the_way(
    hostile: dict[str, str], start: list[str]
) -> None:
    ran = subprocess.run(
        [sys.executable, *start, "params", "learning_rate"],
        env=hostile,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    assert "train.learning_rate" in ran.stdout


def test_the_users_path_stays_as_it_was(hostile: dict[str, str]) -> None:
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); before = list(sys.path)\n"
        "import tunedeck; tunedeck.bind_packages(); assert sys.path == before\n"
        "import core.values; print(core.values.__file__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=hostile, capture_output=True, text=True, timeout=240
    )
    assert ran.stdout.strip() == str(ROOT / "core" / "values.py"), ran.stderr


def test_a_folder_that_misses_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "tunedeck.py").write_bytes((ROOT / "tunedeck.py").read_bytes())
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "tunedeck.py")], capture_output=True, text=True, timeout=240
    )
    assert ran.returncode != 0
    assert "not installed completely" in ran.stderr
