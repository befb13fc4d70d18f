"""A program: what torch, NVML and nvidia-smi say about the GPU that this process sees, as one JSON object.

It runs apart, so that its CUDA context is gone when it ends.
"""

import json
import subprocess
from typing import Any

SMI_FIELDS = ("uuid", "name", "memory.total", "temperature.gpu", "power.limit", "driver_version")


def torch_facts() -> dict[str, Any]:
    """The first GPU as PyTorch sees it; `available` False where it sees none."""
    import torch

    facts: dict[str, Any] = {"available": torch.cuda.is_available(), "cuda": torch.version.cuda}
    if not facts["available"]:
        return facts
    gpu = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        **facts,
        "count": torch.cuda.device_count(),
        "name": gpu.name,
        "uuid": f"GPU-{str(getattr(gpu, 'uuid', '')).removeprefix('GPU-')}",
        "total": total,
        "free": free,
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
    }


def driver() -> str:
    """The driver's version, empty where NVML does not tell."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return ""
    return version.decode() if isinstance(version, bytes) else str(version)


def smi(fields: tuple[str, ...] = SMI_FIELDS) -> list[dict[str, str]]:
    """One mapping a GPU of what nvidia-smi prints, sizes in MiB; empty where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if ran.returncode != 0:
        return []
    rows = (line.split(", ") for line in ran.stdout.splitlines() if line.strip())
    return [dict(zip(fields, row, strict=False)) for row in rows]


if __name__ == "__main__":
    print(json.dumps({"torch": torch_facts(), "driver": driver(), "smi": smi()}))
