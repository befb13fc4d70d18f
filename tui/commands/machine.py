"""`tunedeck gpus`: what the machine has."""

import argparse
import dataclasses
import json

from core.devices.gpu import GpuSnapshot, NvmlReader
from core.devices.host import HostReader
from tui import words
from tui.text_table import table


def gpus(arguments: argparse.Namespace) -> int:
    """Print the GPUs and the host. Without a GPU that is said, and is no failure."""
    reading = NvmlReader().read()
    host = HostReader().read()
    if arguments.json:
        content = {
            "gpus": [dataclasses.asdict(g) for g in reading.gpus],
            "problem": reading.problem,
            "host": dataclasses.asdict(host),
        }
        print(json.dumps(content, indent=1))
        return 0
    if reading.problem:
        print(reading.problem)
    if reading.gpus:
        headers = ("GPU", "name", "memory in use", "busy", "power", "temperature", "processes")
        print(table(headers, [_row(g) for g in reading.gpus]))
        for gpu in reading.gpus:
            print(f"  {gpu.index}: {gpu.uuid}")
    print(
        f"host: {host.cores} cores, {host.cpu_percent:.0f}% busy; "
        f"memory {words.size(host.ram_used)} of {words.size(host.ram_limit or host.ram_total)} in use"
    )
    return 0


def _row(gpu: GpuSnapshot) -> tuple[str, ...]:
    known = gpu.memory_used is not None and gpu.memory_total is not None
    return (
        str(gpu.index),
        gpu.name + (" (MIG)" if gpu.mig else ""),
        f"{words.size(gpu.memory_used)} of {words.size(gpu.memory_total)}" if known else "-",
        "-" if gpu.utilization is None else f"{gpu.utilization}%",
        "-" if gpu.power_watts is None else f"{gpu.power_watts:.0f} W",
        "-" if gpu.temperature_c is None else f"{gpu.temperature_c} °C",
        ", ".join(f"{p.name or 'pid'} {p.pid}" for p in gpu.processes) or "none",
    )
