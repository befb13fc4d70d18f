import subprocess
import sys
from pathlib import Path

from core.engine.versions import torch_version

ROOT = Path(__file__).resolve().parents[3]


def test_the_version_of_pytorch_is_the_one_that_workers_report() -> None:
    code = "import torch; print(torch.__version__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert torch_version() == ran.stdout.strip()


def test_pytorch_is_not_loaded_for_it() -> None:
    code = "from core.engine.versions import torch_version; torch_version(); import sys; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert ran.stdout.strip() == "False"
