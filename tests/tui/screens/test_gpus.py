"""The GPUs screen."""

from typing import Any

import pytest

from core.devices.gpu import GpuReading
from tests.tui.fake import FakeSource, gpu
from tests.tui.screens.conftest import Opened, screen_text, settle


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


async def held(app: Any, pilot: Any, key: str, times: int) -> None:
    """A key that repeats faster than the screen follows."""
    for _ in range(times):
        app.simulate_key(key)
    await settle(app, pilot)


async def test_a_gpu_shows_its_measures_its_trials_and_its_processes(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "4")
        text = screen_text(app)
    for words in ("13.4 of 24.0 GiB", "87 %", "312 of 450 W", "66°C", "trial 5, trial 6"):
        assert words in text
    assert "python serve.py  pid 812" in text and "34 % of 16 cores" in text


async def test_a_machine_without_a_driver_says_so_in_a_sentence(
    opened: Opened, source: FakeSource
) -> None:
    source.reading = GpuReading(
        (), "No NVIDIA driver found on this machine: trials run on the CPU."
    )
    async with opened() as (app, pilot):
        await press(app, pilot, "4")
        text = screen_text(app)
    assert "No NVIDIA driver found" in text and "Host" in text


async def test_what_the_driver_does_not_tell_is_marked(opened: Opened, source: FakeSource) -> None:
    source.reading = GpuReading(
        (gpu(memory_used=None, utilization=None, power_watts=None, temperature_c=None),)
    )
    async with opened() as (app, pilot):
        await press(app, pilot, "4")
        assert screen_text(app).count("n/a") == 4


async def test_a_gpu_that_appears_gets_its_place(opened: Opened, source: FakeSource) -> None:
    async with opened(size=(160, 45)) as (app, pilot):
        await press(app, pilot, "4")
        source.reading = GpuReading((gpu(), gpu(index=1, uuid="GPU-2", processes=())))
        await press(app, pilot, "3", "4")
        text = screen_text(app)
    assert "GPU 0" in text and "GPU 1" in text and "nothing" in text


async def test_eight_gpus_are_reached_by_scrolling(opened: Opened, source: FakeSource) -> None:
    source.reading = GpuReading(tuple(gpu(index=i, uuid=f"GPU-{i}") for i in range(8)))
    async with opened() as (app, pilot):
        await press(app, pilot, "4")
        assert "GPU 7" not in screen_text(app)
        await held(app, pilot, "down", 30)
        assert "GPU 7" in screen_text(app)
        await held(app, pilot, "up", 30)
        assert "GPU 0" in screen_text(app)


async def test_devices_are_not_read_while_another_screen_is_shown(
    opened: Opened, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "4", "3")
        monkeypatch.setattr(source, "devices", lambda: pytest.fail("read while hidden"))
        screen = app._screen_stacks["gpus"][0]
        screen._read()  # type: ignore[attr-defined]
        await settle(app, pilot)


async def test_the_page_is_copied_as_text(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    async with opened() as (app, pilot):
        await press(app, pilot, "4", "c")
        await app.workers.wait_for_complete()
        assert "GPU 0  NVIDIA RTX 4090" in app.clipboard
        assert "memory 13.4 of 24.0 GiB" in app.clipboard
