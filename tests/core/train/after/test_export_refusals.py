"""What no export makes a model of, and what it leaves alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from core.study.after import ExportReply, ExportRequest, Weights
from core.train.after import export as exporting
from core.train.after import loading
from core.train.after.export import export
from core.train.after.folders import UnlikeError
from core.train.errors import ModelError, SettingsError, UsageError
from tests.core.train.conftest import Ran

Train = Callable[..., Ran]
Export = Callable[..., ExportReply]


def _spoil(folder: Path, value: float) -> None:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    first = sorted(weights)[0]
    weights[first][0, 0] = value
    save_file(weights, file)


@pytest.mark.parametrize("alone", [True, False])
def test_weights_that_are_no_numbers_are_refused(
    alone: bool, trained: Train, exported: Export, tmp_path: Path
) -> None:
    ran = trained()
    _spoil(ran.folder / "output", float("nan"))
    with pytest.raises(ModelError, match="no number"):
        exported(ran, adapter_only=alone)
    assert list(tmp_path.glob("model*")) == []


def test_what_does_not_fit_into_fp16_is_refused_with_the_way_out(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    ran = trained(method__finetuning_type="full", train__learning_rate=0.001)
    file = ran.folder / "output" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] = 1e6
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="--dtype bf16"):
        exported(ran, dtype="fp16")
    assert list(tmp_path.glob("model*")) == []


def test_a_model_that_says_something_else_is_kept_aside_and_named(
    trained: Train, exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting.save

    def wrong(model: Any, *arguments: Any) -> None:
        model.lm_head.weight.data += 0.5 * torch.randn_like(model.lm_head.weight)
        real(model, *arguments)

    monkeypatch.setattr(exporting, "save", wrong)
    with pytest.raises(UnlikeError, match=r"model\.partial") as raised:
        exported(trained())
    assert raised.value.kept == str(tmp_path / "model.partial")
    assert (tmp_path / "model.partial" / "model.safetensors").is_file()
    assert not (tmp_path / "model").exists()


def test_a_folder_that_holds_something_is_left_alone(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    ran = trained()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious.txt").write_text("mine")
    with pytest.raises(SettingsError, match="--overwrite"):
        exported(ran)
    assert (tmp_path / "model" / "precious.txt").read_text() == "mine"
    exported(ran, overwrite=True)
    assert not (tmp_path / "model" / "precious.txt").exists()
    assert (tmp_path / "model" / "config.json").is_file()
    assert sorted(p.name for p in tmp_path.glob("model*")) == ["model"]


def test_the_folder_where_the_export_writes_first_may_be_somebody_elses(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "precious.txt").write_text("mine")
    with pytest.raises(SettingsError, match="in the way"):
        exported(trained())
    assert (tmp_path / "model.partial" / "precious.txt").read_text() == "mine"


def test_an_export_never_writes_over_what_it_reads(trained: Train, line: Any) -> None:
    ran = trained()
    weights = Weights(str(ran.folder / "output"), str(ran.folder))
    for place in (ran.folder / "output", ran.folder, ran.folder.parent):
        request = ExportRequest(weights=weights, output=str(place), overwrite=True)
        with pytest.raises(SettingsError, match="reads from there"):
            export(request, line)
    assert (ran.folder / "output" / "adapter_config.json").is_file()


def test_a_place_that_nothing_can_be_renamed_to_is_refused_before_anything_is_done(
    trained: Train, exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = trained()
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "model")
    with pytest.raises(SettingsError, match="where a disk is mounted"):
        exported(ran, overwrite=True)
    assert not (tmp_path / "model.partial").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(
    trained: Train, exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = trained()
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="are free"):
        exported(ran)
    assert list(tmp_path.glob("model*")) == []


def test_an_adapter_of_another_model_is_refused(trained: Train, tmp_path: Path, line: Any) -> None:
    ran = trained()
    other = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(other).save_pretrained(tmp_path / "other")
    weights = Weights(str(ran.folder / "output"), str(ran.folder), base=str(tmp_path / "other"))
    with pytest.raises(ModelError, match="does not fit its base model"):
        export(ExportRequest(weights=weights, output=str(tmp_path / "model")), line)


def test_a_checkpoint_that_is_deleted_meanwhile_is_said_to_be_gone(
    model_dir: Path, tmp_path: Path
) -> None:
    model = LlamaForCausalLM.from_pretrained(model_dir)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    with pytest.raises(ModelError, match="save_total_limit"):
        loading.add_adapter(model, tmp_path / "checkpoint-3")


def test_a_base_that_is_quantised_on_the_disk_is_not_merged_into(
    trained: Train, model_dir: Path, tmp_path: Path, line: Any
) -> None:
    ran = trained()
    rounded = tmp_path / "rounded"
    shutil.copytree(model_dir, rounded)
    config = json.loads((rounded / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (rounded / "config.json").write_text(json.dumps(config))
    weights = Weights(str(ran.folder / "output"), str(ran.folder), base=str(rounded))
    with pytest.raises(ModelError, match="full precision"):
        export(ExportRequest(weights=weights, output=str(tmp_path / "model")), line)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "holds no weights"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "no JSON object"),
        (
            lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
            "no weights",
        ),
    ],
)
def test_folders_that_are_no_run_are_refused_with_the_reason(
    prepare: Callable[[Path], Any], message: str, tmp_path: Path, line: Any
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(UsageError, match=message):
        export(ExportRequest(weights=Weights(str(folder)), output=str(tmp_path / "model")), line)


def test_the_base_that_is_gone_is_named(trained: Train, tmp_path: Path, line: Any) -> None:
    ran = trained()
    weights = Weights(str(ran.folder / "output"), str(ran.folder), base=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="gone"):
        export(ExportRequest(weights=weights, output=str(tmp_path / "model")), line)


def test_a_size_of_shards_that_makes_no_sense_is_refused(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="max-shard-size"):
        exported(trained(), max_shard_size="a few")
    assert list(tmp_path.glob("model*")) == []
