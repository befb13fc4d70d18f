"""`tunedeck estimate` and `tunedeck fit`: what a profile needs of a device's memory, and how to make it fit."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from core.devices.gpu import GpuSnapshot, NvmlReader, visible
from core.engine.memory.target import best_gpu, guard_of, imagined, target_from, usable_gpus
from core.engine.versions import torch_version
from core.memory import calibration
from core.memory.architecture import likely_architecture
from core.memory.closed_form import estimate as closed_form
from core.memory.fixes import Advice, Fix, Prove, fastest, find_fixes
from core.memory.forecast import GIB, Forecast, Lengths, Target
from core.memory.limits import LONGEST, largest_batch, longest_sequence, smallest_gpu
from core.memory.models.shape import Architecture
from core.memory.prover import ProofError, Prover
from core.missing import missing_files
from core.profile import Profile, ProfileError, load, resolve, save
from tui import words
from tui.commands.run import parse_changes
from tui.memory_text import Estimate, Place, estimate_json, estimate_text, fit_json, fit_text
from tui.memory_view import MEMORY_KEYS

PROCESSES = 2
"""Dry runs side by side; each holds about 0.6 GB."""


class StopError(Exception):
    """The command ends with a message: 2 for wrong use, 1 for what cannot be done."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line asks about."""

    name: str
    profile: Profile
    """As the file has it, its search included."""
    architecture: Architecture
    place: Place

    @property
    def plain(self) -> Profile:
        """The run without a search."""
        return self.profile.as_training()


def estimate(arguments: argparse.Namespace) -> int:
    """Forecast the memory of a profile: 0 where it fits, 1 where it does not, 2 for wrong use."""
    try:
        asked = _asked(arguments, with_data=arguments.prove)
    except StopError as error:
        return _stopped(error)
    said = _proven(asked) if arguments.prove else _estimated(asked, Lengths.bound(asked.plain))
    if arguments.json:
        print(json.dumps(estimate_json(said), indent=1))
    else:
        print(estimate_text(said))
        if not said.fits:
            print(f"\nTo make it fit: {_again(arguments)}")
    return 0 if said.fits else 1


def fit(arguments: argparse.Namespace) -> int:
    """Find what makes a profile fit, or faster where it fits: 0 with a way, 1 without, 2 for wrong use."""
    try:
        asked = _asked(arguments, with_data=True)
        target = _output(arguments)
    except StopError as error:
        return _stopped(error)
    advice, quicker = _advice(asked, only_equivalent=arguments.equivalent_only)
    found = advice.fits or bool(advice.fixes)
    chosen, stopped = None, None
    if target is not None and found:
        try:
            chosen = _chosen(arguments, advice, quicker)
            _write(asked, chosen, target)
        except StopError as error:
            stopped = error
    written = str(target) if target is not None and found and stopped is None else None
    if arguments.json:
        said = fit_json(asked.name, asked.place, advice, quicker, written)
        print(json.dumps(said, indent=1))
    else:
        print(fit_text(asked.name, asked.place, advice, quicker, command=_again(arguments)))
        if written:
            print(f"\nSaved as {written}: {chosen.text if chosen else 'the profile as it is'}")
    if stopped is not None:
        return _stopped(stopped)
    return 0 if found else 1


def _asked(arguments: argparse.Namespace, *, with_data: bool) -> Asked:
    from core.catalogue import UnknownParameterError

    path = resolve(arguments.profile)
    try:
        changes = parse_changes(arguments.changes)
    except (ValueError, UnknownParameterError) as error:
        raise StopError(f"--set {error}") from None
    profile = load(path, changes)
    problems = [p for p in missing_files(profile) if with_data or p.key.startswith("model.")]
    if problems:
        raise ProfileError(str(path), problems)
    place = _place(arguments, profile)
    return Asked(profile.profile.name, profile, likely_architecture(profile), place)


def _place(arguments: argparse.Namespace, profile: Profile) -> Place:
    """The device that is meant: an imagined GPU, a named one, else the emptiest one here, else the CPU."""
    if arguments.gpu_gib is not None:
        target = imagined(arguments.gpu_gib, profile)
        label = f"a GPU of {arguments.gpu_gib:g} GiB that is not here ({words.size(target.free)} usable)"
        return Place(target, f"{label}{_limit_words(target)}", here=False)
    if arguments.device == "cpu":
        return _cpu(profile, "as asked")
    reading = NvmlReader().read()
    if arguments.device is not None:
        named = visible(reading.gpus, arguments.device)
        if len(named) != 1:
            there = ", ".join(f"{g.index} ({g.uuid})" for g in reading.gpus) or "none"
            why = f" {reading.problem}" if reading.problem else ""
            raise StopError(f"--device {arguments.device}: GPUs here: {there}.{why}")
        return _gpu(named[0], profile)
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    best = best_gpu(reading.gpus, profile, given)
    if best is not None:
        return _gpu(best, profile, len(usable_gpus(reading.gpus, profile, given)))
    wanted = profile.resources.devices == "cpu"
    return _cpu(profile, "as the profile says" if wanted else "there is no GPU here for it")


def _gpu(gpu: GpuSnapshot, profile: Profile, gpus: int = 1) -> Place:
    torch = torch_version()
    held = calibration.context(gpu.name, torch)
    target = target_from(gpu, profile, context=held, gpus=gpus)
    if target is None:
        raise StopError(f"the driver does not tell how much memory GPU {gpu.index} has", 1)
    free = f"{words.size(target.free)} of {words.size(target.total)} free"
    label = f"GPU {gpu.index}, {gpu.name} ({free}){_limit_words(target)}"
    return Place(target, label, guard=guard_of(target, torch))


def _cpu(profile: Profile, why: str) -> Place:
    target = target_from(None, profile)
    assert target is not None  # The host always tells its memory.
    capped = profile.memory.limit_gib
    room = f"{words.size(target.free)} of {words.size(target.total)} of the host's memory free"
    if capped is not None and target.free == int(capped * GIB):
        room = f"memory.limit_gib allows {capped:g} GiB"
    return Place(target, f"the CPU, {why} ({room})", guard=guard_of(target, torch_version()))


def _limit_words(target: Target) -> str:
    return (
        ""
        if target.limit is None
        else f", capped at {words.size(target.limit)} by memory.limit_gib"
    )


def _estimated(asked: Asked, lengths: Lengths, problem: str = "") -> Estimate:
    forecast = closed_form(asked.plain, asked.architecture, asked.place.target, lengths)
    return _said(asked, lengths, forecast, None, problem)


def _proven(asked: Asked) -> Estimate:
    try:
        with Prover(PROCESSES) as prover, _told():
            lengths = prover.lengths(asked.plain)
            forecast = prover.prove(asked.plain, asked.place.target, lengths)
            return _said(asked, lengths, forecast, prover, "")
    except ProofError as error:
        return _estimated(asked, Lengths.bound(asked.plain), str(error))


def _said(
    asked: Asked, lengths: Lengths, forecast: Forecast, prover: Prover | None, problem: str
) -> Estimate:
    place = asked.place
    question = (asked.plain, asked.architecture, place.target, lengths)
    prove = _bound_to(prover, place.target, lengths)
    # Rows of any length are asked about here: the data's own must not bound them.
    evaluation = LONGEST if lengths.evaluation else 0
    long = msgspec.structs.replace(lengths, train=LONGEST, evaluation=evaluation)
    unbound = _bound_to(prover, place.target, long)
    said = closed_form(*question)
    guard, bias = place.guard, forecast.needed / max(1, said.needed)
    with ThreadPoolExecutor(PROCESSES) as both:
        batch = both.submit(lambda: largest_batch(*question, prove, guard=guard, bias=bias))
        sequence = both.submit(lambda: longest_sequence(*question, unbound, guard=guard, bias=bias))
    return Estimate(
        profile=asked.name,
        place=place,
        architecture=asked.architecture,
        lengths=lengths,
        forecast=forecast,
        smallest=smallest_gpu(forecast, guard) if place.target.kind == "cuda" else None,
        batch=batch.result(),
        batch_now=asked.plain.train.per_device_train_batch_size,
        sequence=sequence.result(),
        problem=problem,
        varied=tuple(name for name in asked.profile.search.space if name in MEMORY_KEYS),
    )


def _bound_to(prover: Prover | None, target: Target, lengths: Lengths) -> Prove | None:
    if prover is None:
        return None

    def prove(profiles: Sequence[Profile]) -> Sequence[Forecast | ProofError]:
        if len(profiles) > 1:
            return prover.prove_all(profiles, target, lengths)
        try:
            # The next process in turn: two questions of one profile each are answered side by side.
            return [prover.prove(profiles[0], target, lengths)]
        except ProofError as error:
            return [error]

    return prove


def _advice(asked: Asked, *, only_equivalent: bool) -> tuple[Advice, Fix | None]:
    """What the search came to, and where the profile fits the fastest way to run it."""
    place = asked.place

    def search(lengths: Lengths, prove: Prove | None) -> tuple[Advice, Fix | None]:
        question = (asked.profile, asked.architecture, place.target, lengths, prove)
        advice = find_fixes(
            *question, guard=place.guard, crashed=False, only_equivalent=only_equivalent
        )
        if not advice.fits:
            return advice, None
        return advice, fastest(*question, guard=place.guard, now=advice.forecast)

    try:
        with Prover(PROCESSES) as prover, _told():
            prover.start()
            lengths = prover.lengths(asked.plain)
            return search(lengths, _bound_to(prover, place.target, lengths))
    except ProofError as error:
        advice, quicker = search(Lengths.bound(asked.plain), None)
        unproven: Advice = msgspec.structs.replace(advice, problem=str(error))
        return unproven, quicker


@contextmanager
def _told() -> Iterator[None]:
    """Say on a terminal that dry runs take a while."""
    shown = sys.stderr.isatty()
    if shown:
        print("dry runs, some seconds each ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _output(arguments: argparse.Namespace) -> Path | None:
    if arguments.output is None:
        if arguments.fix is not None:
            raise StopError("--fix chooses what -o FILE writes: name a file")
        return None
    target = Path(arguments.output)
    if target.exists() and not arguments.force:
        raise StopError(f"{target} exists; --force replaces it", 1)
    return target


def _chosen(arguments: argparse.Namespace, advice: Advice, quicker: Fix | None) -> Fix | None:
    """What is to be written; None for the profile as it is."""
    fixes: tuple[Fix, ...] = advice.fixes
    if advice.fits:
        fixes = () if quicker is None else (quicker,)
    number: int | None = arguments.fix
    if number is not None:
        if not 1 <= number <= len(fixes):
            raise StopError(f"--fix {number}: there are {len(fixes)}")
        return fixes[number - 1]
    if advice.fits:
        return quicker
    same = next((fix for fix in fixes if fix.numerics == "equivalent"), None)
    if same is None:
        raise StopError("every way that fits changes the result: choose one with --fix N", 1)
    return same


def _write(asked: Asked, fix: Fix | None, target: Path) -> None:
    profile = asked.profile
    comment = f"Written by `tunedeck fit`: it fits {asked.place.label} as it is."
    if fix is not None:
        space = {k: v for k, v in profile.search.space.items() if k not in fix.changes}
        profile = replace(profile, search=profile.search.model_copy(update={"space": space}))
        profile = profile.with_changes(fix.changes)
        comment = f"Written by `tunedeck fit` for {asked.place.label}: {fix.text}"
    try:
        save(profile, target, comment=comment)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StopError(f"{target} cannot be written: {why}", 1) from None


def _again(arguments: argparse.Namespace) -> str:
    """The `tunedeck fit` of what the command line asks about."""
    parts = ["tunedeck", "fit", arguments.profile]
    if arguments.gpu_gib is not None:
        parts += ["--gpu-gib", f"{arguments.gpu_gib:g}"]
    elif arguments.device is not None:
        parts += ["--device", arguments.device]
    for change in arguments.changes:
        parts += ["--set", change]
    return shlex.join(parts)


def _stopped(error: StopError) -> int:
    print(f"tunedeck: {error}", file=sys.stderr)
    return error.code
