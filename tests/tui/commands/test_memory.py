"""`tunedeck estimate` and `tunedeck fit`: what they say, what they write, how they end."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import pytest

from core.devices.gpu import FakeReader, GpuReading, GpuSnapshot
from core.memory.architecture import find_architecture
from core.memory.closed_form import estimate
from core.memory.forecast import Forecast, Lengths, Target
from core.memory.prover import ProofError
from core.profile import Profile, load
from tui.cli import main

PROFILE = """
[profile]
name = "small"
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
cutoff_len = 512
[train]
precision = "bf16"
per_device_train_batch_size = 8
gradient_accumulation_steps = 2
"""
CONFIG = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
    "tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
"""A model of 1.2 billion parameters."""


class FakeProver:
    """Proves what the closed form says, times `error`; `fails` is why it cannot."""

    fails = ""
    error = 1.0
    longest = 400
    runs = 0

    def __init__(self, processes: int = 1) -> None:
        assert processes >= 1

    def __enter__(self) -> "FakeProver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        return None

    def start(self) -> None:
        return None

    def lengths(self, profile: Profile) -> Lengths:
        if self.fails:
            raise ProofError(self.fails)
        return Lengths(self.longest, self.longest, measured=True)

    def prove(self, profile: Profile, target: Target, lengths: Lengths) -> Forecast:
        type(self).runs += 1
        most = profile.data.cutoff_len
        rows = Lengths(min(lengths.train, most), min(lengths.evaluation, most), lengths.measured)
        said = estimate(profile, find_architecture(profile), target, rows)
        return msgspec.structs.replace(
            said, tier="proof", needed=int(said.needed * self.error), notes=()
        )

    def prove_all(
        self, profiles: Sequence[Profile], target: Target, lengths: Lengths
    ) -> list[Forecast | ProofError]:
        return [self.prove(profile, target, lengths) for profile in profiles]


def gpu(index: int, gib: float, used: float = 0.0) -> GpuSnapshot:
    return GpuSnapshot(
        index, f"GPU-{index}a", "NVIDIA RTX", int(gib * 2**30), int(used * 2**30), 0, None, None, None,
        (), False, (8, 6), 0,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeProver]:
    """A folder with a profile of a 1B model, no GPU, and a prover that needs no torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "p.toml").write_text(PROFILE.replace('path = "demo"', 'path = "./model"'))
    fake = type("Fake", (FakeProver,), {})
    monkeypatch.setattr("tui.commands.memory.Prover", fake)
    gpus_here(monkeypatch)
    return fake


def gpus_here(monkeypatch: pytest.MonkeyPatch, *gpus: GpuSnapshot) -> None:
    problem = None if gpus else "No NVIDIA driver found on this machine: trials run on the CPU."
    reader = FakeReader([GpuReading(gpus, problem)])
    monkeypatch.setattr("tui.commands.memory.NvmlReader", lambda: reader)


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def as_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content = json.loads(capsys.readouterr().out)
    assert isinstance(content, dict)
    return content


def test_an_estimate_says_what_holds_the_memory_and_how_far_it_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("estimate", "p.toml", "--gpu-gib", "80") == 0
    out = capsys.readouterr().out
    for words in (
        "a GPU of 80 GiB that is not here", "Fits", "an estimate", "1.24B parameters", "up to 512 tokens",
        "activations", "backward", "smallest GPU that it fits", "largest batch that fits here", "now 8",
        "longest rows that fit here", "now 512", "in step",
    ):  # fmt: skip
        assert words in out, words
    assert "proven" not in out


def test_what_does_not_fit_ends_with_1_and_names_the_way_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("estimate", "p.toml", "--gpu-gib", "4") == 1
    out = capsys.readouterr().out
    assert "Does not fit" in out
    assert "tunedeck fit p.toml --gpu-gib 4" in out


@pytest.mark.parametrize("command", [["estimate"], ["estimate", "--prove"], ["fit"]])
@pytest.mark.parametrize("gib", ["2", "5", "80"])
def test_the_output_fits_80_columns(
    command: list[str], gib: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command[0], "p.toml", "--gpu-gib", gib, *command[1:]) in (0, 1)
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--gpu-gib", "0"), ("--gpu-gib", "-8"), ("--gpu-gib", "large"), ("--gpu-gib", "nan"),
        ("--gpu-gib", "8", "--device", "0"), ("--device", "3"), ("--set", "train.learning_rat=1"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("estimate", "fit"):
        assert run(command, "p.toml", *arguments) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_the_estimate_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("estimate", "p.toml", "--gpu-gib", "24", "--json") == 0
    said = as_json(capsys)
    assert set(said) == {
        "profile", "device", "rows", "tier", "fits", "needed", "context", "total", "headroom", "allocated",
        "reserved", "parts", "moments", "peak", "peak_step", "notes", "smallest_gpu", "largest_batch",
        "longest_sequence", "problem",
    }  # fmt: skip
    assert said["tier"] == "estimate"
    assert said["fits"] is True
    assert sum(said["parts"].values()) == said["allocated"]
    assert said["needed"] + said["context"] == said["total"]
    assert said["device"]["here"] is False
    assert said["rows"] == {"train": 512, "evaluation": 512, "measured": False}
    assert said["largest_batch"]["value"] >= 8
    assert said["largest_batch"]["proven"] is False


def test_a_proof_measures_the_rows_and_is_called_one(
    place: type[FakeProver], capsys: pytest.CaptureFixture[str]
) -> None:
    place.error = 1.02
    assert run("estimate", "p.toml", "--gpu-gib", "24", "--prove") == 0
    out = capsys.readouterr().out
    assert "proven by a dry run" in out
    assert "the longest row has 400 tokens" in out
    assert run("estimate", "p.toml", "--gpu-gib", "24", "--prove", "--json") == 0
    said = as_json(capsys)
    assert said["tier"] == "proof"
    assert said["largest_batch"]["proven"] is True
    assert said["longest_sequence"]["proven"] is True
    assert said["longest_sequence"]["value"] > 512


def test_what_cannot_be_proven_is_estimated_and_says_why(
    place: type[FakeProver], capsys: pytest.CaptureFixture[str]
) -> None:
    place.fails = "the model needs code of its own"
    assert run("estimate", "p.toml", "--gpu-gib", "24", "--prove") == 0
    out = capsys.readouterr().out
    assert "an estimate" in out
    assert "Nothing is proven: the model needs code of its own" in out


def test_without_data_an_estimate_is_possible_and_a_proof_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = Path("p.toml").read_text().replace('dataset = "demo"', 'dataset = "later.jsonl"')
    Path("p.toml").write_text(text)
    assert run("estimate", "p.toml", "--gpu-gib", "24") == 0
    capsys.readouterr()
    assert run("estimate", "p.toml", "--gpu-gib", "24", "--prove") == 1
    assert "later.jsonl: there is no such file" in capsys.readouterr().err


def test_the_way_on_asks_about_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("--set", "per_device_train_batch_size=64", "--set", "profile.notes=two words")
    for command, end in (("estimate", ""), ("fit", " --fix N -o FILE")):
        run(command, "p.toml", *changes, "--gpu-gib", "8")
        asked = "tunedeck fit p.toml --gpu-gib 8 --set per_device_train_batch_size=64 "
        assert f"{asked}--set 'profile.notes=two words'{end}" in capsys.readouterr().out


def test_a_hub_model_that_is_not_here_is_estimated_from_its_name(
    place: type[FakeProver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place.fails = "there is no such model on this machine"
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    named = ("p.toml", "--gpu-gib", "80", "--set")
    for command in ("estimate", "fit"):
        assert run(command, *named, "model.model_name_or_path=org/model-1.5B") == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "an estimate from the 1.5B in its name" in out
        assert "hf download org/model-1.5B config.json" in out
    assert run("estimate", *named, "model.model_name_or_path=org/model") == 1
    assert "org/model has not been downloaded yet" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-3", "nan", "inf", "1e9", "big"])
def test_what_is_no_size_of_a_gpu_is_said(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("estimate", "p.toml", "--gpu-gib", size) == 2
    assert f"{size} is no size of a GPU" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("retry", "s", "1"), ("fit", "p.toml", "-o", "f.toml")])
def test_the_first_fix_is_number_1(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--fix", "0") == 2
    assert "0 is no number of a fix: the first is 1" in capsys.readouterr().err


def test_rows_that_are_too_long_at_any_told_length_are_not_called_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("estimate", "p.toml", "--gpu-gib", "8", "--set", "per_device_train_batch_size=4096")
    assert "below 64 tokens" in capsys.readouterr().out


def test_a_model_without_config_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model/config.json").unlink()
    for command in ("estimate", "fit"):
        assert run(command, "p.toml", "--gpu-gib", "24") == 1
        err = capsys.readouterr().err
        assert "config.json" in err
        assert "Traceback" not in err


def test_the_emptiest_gpu_here_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus_here(monkeypatch, gpu(0, 24, used=20), gpu(1, 24), gpu(2, 20))
    assert run("estimate", "p.toml") == 0
    assert "GPU 1, NVIDIA RTX (24.0 GiB of 24.0 GiB free)" in capsys.readouterr().out
    assert run("estimate", "p.toml", "--device", "0") == 1
    assert "GPU 0" in capsys.readouterr().out
    assert run("estimate", "p.toml", "--device", "GPU-2", "--json") == 0
    assert as_json(capsys)["device"]["total"] == 20 * 2**30


def test_a_gpu_that_is_not_there_lists_those_that_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus_here(monkeypatch, gpu(0, 24))
    assert run("estimate", "p.toml", "--device", "7") == 2
    assert "0 (GPU-0a)" in capsys.readouterr().err


def test_without_a_gpu_it_is_the_cpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("estimate", "p.toml")
    assert "the CPU, there is no GPU here for it" in capsys.readouterr().out
    run("estimate", "p.toml", "--set", "memory.limit_gib=1.5")
    assert "memory.limit_gib allows 1.5 GiB" in " ".join(capsys.readouterr().out.split())
    gpus_here(monkeypatch, gpu(0, 24))
    run("estimate", "p.toml", "--device", "cpu")
    assert "the CPU, as asked" in capsys.readouterr().out
    run("estimate", "p.toml", "--set", "resources.devices=cpu")
    assert "the CPU, as the profile says" in capsys.readouterr().out


def test_a_search_over_memory_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("search.space.lora_rank=[8, 64]", "search.space.learning_rate=[1e-4, 1e-3]")
    run("estimate", "p.toml", "--gpu-gib", "24", "--set", changes[0], "--set", changes[1])
    out = " ".join(capsys.readouterr().out.split())
    assert "The search varies lora_rank:" in out


def test_fixes_are_listed_with_what_they_need_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "6") == 0
    out = capsys.readouterr().out
    assert "Does not fit" in out
    assert "dominate" in out
    assert "1. " in out and "3. " in out
    assert "(proven)" in out
    assert "per token" in out
    assert "to spare" in out
    assert "tunedeck fit p.toml --gpu-gib 6 --fix N -o FILE" in out


def test_the_advice_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "6", "--json") == 0
    said = as_json(capsys)
    assert set(said) == {
        "profile", "device", "forecast", "fits", "dominant", "summary", "fixes", "fastest", "tried", "problem",
        "written",
    }  # fmt: skip
    assert said["fits"] is False
    assert said["written"] is None
    for fix in said["fixes"]:
        assert set(fix) == {
            "changes", "text", "needed", "headroom", "slowdown", "source", "numerics", "effect", "proven"
        }  # fmt: skip
        assert fix["proven"] is True


def test_a_profile_that_fits_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "6", "-o", "fits.toml") == 0
    assert "Saved as fits.toml" in capsys.readouterr().out
    written, before = load("fits.toml"), load("p.toml")
    assert written != before
    assert written.effective_batch() == before.effective_batch()
    assert Path("fits.toml").read_text().startswith("# Written by `tunedeck fit`")
    assert run("estimate", "fits.toml", "--gpu-gib", "6", "--prove") == 0


def test_another_fix_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "6", "--fix", "2", "-o", "second.toml", "--json") == 0
    changes = as_json(capsys)["fixes"][1]["changes"]
    written = load("second.toml")
    assert {name: written.value(name) for name in changes} == changes
    assert run("fit", "p.toml", "--gpu-gib", "6", "--fix", "9", "-o", "ninth.toml") == 2
    assert run("fit", "p.toml", "--gpu-gib", "6", "--fix", "1") == 2, "without a file"
    assert not Path("ninth.toml").exists()


def test_a_file_is_replaced_only_by_force(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text("precious")
    assert run("fit", "p.toml", "--gpu-gib", "6", "-o", "mine.toml") == 1
    assert "--force" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == "precious"
    assert run("fit", "p.toml", "--gpu-gib", "6", "-o", "mine.toml", "--force") == 0
    assert tomllib.loads(Path("mine.toml").read_text())["model"]


def test_a_file_that_cannot_be_written_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "6", "-o", "no/such/folder.toml") == 1
    assert "no/such/folder.toml cannot be written" in capsys.readouterr().err


def test_what_changes_the_result_is_written_only_when_it_is_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    batch = "train.per_device_train_batch_size=1"
    tight = ("fit", "p.toml", "--gpu-gib", "2.5", "--set", batch)
    assert run(*tight, "-o", "other.toml") == 1
    said = capsys.readouterr()
    assert "changes the result:" in said.out, "the ways are shown all the same"
    assert "choose one with --fix N" in said.err
    assert not Path("other.toml").exists()
    assert run(*tight, "-o", "other.toml", "--fix", "1") == 0
    assert Path("other.toml").exists()


def test_only_changes_without_a_trace_when_so_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "6", "--equivalent-only", "--json") == 0
    assert {fix["numerics"] for fix in as_json(capsys)["fixes"]} == {"equivalent"}


def test_where_nothing_fits_it_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "p.toml", "--gpu-gib", "0.6", "-o", "never.toml") == 1
    assert "Nothing that was tried fits" in capsys.readouterr().out
    assert not Path("never.toml").exists()


def test_a_profile_that_fits_gets_the_fastest_way(capsys: pytest.CaptureFixture[str]) -> None:
    slow = "train.gradient_checkpointing=true"
    assert run("fit", "p.toml", "--gpu-gib", "80", "--set", slow, "-o", "fast.toml") == 0
    out = capsys.readouterr().out
    assert "It fits already; the fastest that fits:" in out
    assert "faster per token" in out
    assert load("fast.toml").train.gradient_checkpointing is False


def test_a_searched_parameter_leaves_the_space_when_a_fix_sets_it() -> None:
    space = "search.space.per_device_train_batch_size=[8, 16]"
    rate = "search.space.learning_rate=[1e-4, 1e-3]"
    made = ("fit", "p.toml", "--gpu-gib", "5", "--set", space, "--set", rate, "--equivalent-only")
    assert run(*made, "-o", "f.toml") == 0
    written = load("f.toml")
    assert "learning_rate" in written.search.space
    batch_changed = written.train.per_device_train_batch_size != 8
    assert ("per_device_train_batch_size" in written.search.space) is not batch_changed


def test_where_nothing_can_be_proven_fixes_are_estimates(
    place: type[FakeProver], capsys: pytest.CaptureFixture[str]
) -> None:
    place.fails = "no tokenizer"
    assert run("fit", "p.toml", "--gpu-gib", "6") == 0
    out = capsys.readouterr().out
    assert "Nothing is proven: no tokenizer" in out
    assert "(an estimate)" in out
    assert "(proven)" not in out


def tunedeck(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own, with the real prover."""
    program = Path(__file__).resolve().parents[3] / "tunedeck.py"
    command = [sys.executable, "-X", "importtime", "-P", str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_estimate_loads_neither_torch_nor_the_dashboard() -> None:
    """It is there in milliseconds only without them."""
    done = tunedeck("estimate", "p.toml", "--gpu-gib", "80")
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "core.memory.closed_form" in loaded
    assert not {"torch", "transformers", "textual"} & loaded


def test_the_real_dry_run_proves(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(PROFILE)
    done = tunedeck("estimate", "demo.toml", "--gpu-gib", "8", "--prove", "--json")
    said = json.loads(done.stdout)
    assert said["problem"] == ""
    assert said["tier"] == "proof"
    assert said["rows"]["measured"] is True
    assert said["largest_batch"]["proven"] is True
    assert done.returncode == 0
