"""Devices as they are shown."""

from dataclasses import replace

from core.devices.gpu import GpuProcess
from tests.tui.fake import HOST, NOW, FakeSource, gpu, trial_forecast
from tui.device_view import gpu_view, host_view
from tui.snapshot import study_view
from tui.source import Wanted


def test_a_process_below_a_trials_shim_is_named_by_the_trial() -> None:
    study = study_view(FakeSource().feed.read(Wanted()), NOW)
    shown = gpu_view(gpu(), study, {5005: (4006, 1)})
    assert [(p.trial, p.text) for p in shown.processes] == [
        (6, "trial 6"),
        (None, "python serve.py  pid 812"),
    ]
    assert shown.leased == (5, 6)


def test_a_gpu_of_nobody_has_no_lease() -> None:
    study = study_view(FakeSource().feed.read(Wanted()), NOW)
    assert gpu_view(gpu(uuid="GPU-other"), study, {}).leased == ()
    assert gpu_view(gpu(), None, {}).leased == ()


def test_a_process_without_a_name_or_memory_is_shown_all_the_same() -> None:
    shown = gpu_view(gpu(processes=(GpuProcess(7, None, None, compute=False),)), None, {})
    assert shown.processes[0].text == "a process  pid 7  (draws only)"
    assert shown.processes[0].memory == "n/a"


def test_a_limit_on_memory_counts_as_the_machines_memory() -> None:
    limited = replace(HOST, ram_limit=8 * 2**30, ram_limit_used=2 * 2**30)
    assert host_view(limited).ram == (25.0, "2.0 of 8.0 GiB")
    assert host_view(HOST).ram[1] == "21.0 of 64.0 GiB"


def test_swap_is_only_shown_when_it_is_used() -> None:
    assert host_view(HOST).swap is None
    used = replace(HOST, swap_total=8 * 2**30, swap_used=4 * 2**30)
    assert host_view(used).swap == (50.0, "4.0 of 8.0 GiB")


def test_a_gpu_is_held_against_the_forecast_of_the_trials_on_it() -> None:
    source = FakeSource()
    source.feed.forecasts = {5: trial_forecast(), 6: trial_forecast(tier="estimate")}
    found = gpu_view(gpu(), study_view(source.feed.read(Wanted()), NOW), {}).expected
    assert found is not None
    needed = 2 * (int(11.4 * 2**30) + 2**29)
    assert found.forecast == needed / (24 * 2**30)
    assert found.used == int(13.4 * 2**30) / (24 * 2**30)
    assert found.text == "estimate 23.8 GiB"


def test_without_the_forecast_of_each_trial_there_is_nothing_to_compare() -> None:
    source = FakeSource()  # Only one of its two live trials has a forecast.
    study = study_view(source.feed.read(Wanted()), NOW)
    assert gpu_view(gpu(), study, {}).expected is None
    assert gpu_view(gpu(uuid="GPU-other"), study, {}).expected is None
    assert gpu_view(gpu(), None, {}).expected is None
