"""`tunedeck export` and `tunedeck eval`: what they ask for, what they say, how they end."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.engine import after
from core.engine.after import AfterError
from core.study.after import (
    Check,
    EvaluateReply,
    EvaluateRequest,
    ExportReply,
    ExportRequest,
    Progress,
    Result,
    Sampling,
)
from tui.cli import main
from tui.commands.after import ProgressLine

EXPORTED = ExportReply(
    output="/models/mine", kind="model", dtype="bf16", parameters=1_500_000, files=("config.json",),
    bytes=3 << 20, effect=0.7,
    checks=(Check("merged", 0.004, 0.1, 0.05, 0.99, 300), Check("written", 0.004, 0.1, 0.05, 0.99, 300)),
    serve=("vllm serve /models/mine",), notes=("it is small",),
)  # fmt: skip
MEASURED = EvaluateReply(
    rows=88, dropped=2, tokens=3680, data="those that training set aside",
    results=(
        Result(who="tuned", metrics={"eval_loss": 2.5, "eval_perplexity": 12.2, "eval_accuracy": 0.5}, seconds=1.0),
        Result(who="base", metrics={"eval_loss": None, "eval_perplexity": None, "eval_accuracy": 0.2}, seconds=1.0),
    ),
)  # fmt: skip
Calls = list[Any]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the commands ask the processes for."""
    asked: Calls = []

    def answering(reply: Any) -> Callable[..., Any]:
        def answer(request: Any, on_progress: Any, environment: Mapping[str, str]) -> Any:
            asked.append(request)
            on_progress(Progress("working", 1, 2))
            if isinstance(reply, Exception):
                raise reply
            return reply

        return answer

    monkeypatch.setattr(after, "export", answering(EXPORTED))
    monkeypatch.setattr(after, "evaluate", answering(MEASURED))
    return asked


def test_an_export_asks_for_what_was_said_and_tells_how_to_serve_it(
    run_folder: Path,
    calls: Calls,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run_folder.parent)
    flags = [
        "--dtype",
        "bf16",
        "--max-shard-size",
        "1GB",
        "--overwrite",
        "--base-model",
        "other/base",
    ]
    assert main(["export", str(run_folder), "-o", "out", *flags]) == 0
    request = calls[0]
    assert isinstance(request, ExportRequest)
    assert request.output == str(run_folder.parent / "out") and request.device == "cpu"
    assert (request.dtype, request.max_shard_size, request.overwrite) == ("bf16", "1GB", True)
    assert request.weights.folder == str(run_folder) and request.weights.base == "other/base"
    said = capsys.readouterr()
    assert "1,500,000 parameters in bf16, 3 MiB" in said.out
    assert "logits differ by 0.004 of their size (0.05 is allowed)" in said.out
    assert "  vllm serve /models/mine" in said.out and "note: it is small" in said.out
    assert "working 1 of 2" in said.err


def test_a_link_means_the_folder_that_it_leads_to(
    run_folder: Path, calls: Calls, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert main(["export", str(run_folder), "-o", str(tmp_path / "link")]) == 0
    assert calls[0].output == str(tmp_path / "disk")


def test_an_export_for_programs_is_json(
    run_folder: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run_folder), "-o", "out", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == "/models/mine" and told["checks"][0]["error"] == 0.004


@pytest.mark.parametrize(("usage", "code"), [(True, 2), (False, 1)])
def test_what_cannot_be_done_ends_with_its_reason_and_a_code(
    usage: bool,
    code: int,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> Any:
        raise AfterError("the disk is full", usage=usage, kept="/models/mine.partial")

    monkeypatch.setattr(after, "export", fail)
    assert main(["export", str(run_folder), "-o", "out", "--json"]) == code
    said = capsys.readouterr()
    assert said.err == "tunedeck: the disk is full\n"
    assert json.loads(said.out) == {"error": "the disk is full", "kept": "/models/mine.partial"}


def test_a_run_that_is_none_is_refused_before_anything_starts(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "-o", "out"]) == 1
    assert "no study, no trial and no weights" in capsys.readouterr().err and calls == []


def test_an_evaluation_is_a_table_with_a_column_for_each_model(
    run_folder: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--base",
        "--data",
        "rows.jsonl",
        "--generate",
        "--temperature",
        "0.5",
        "--max-samples",
        "9",
    ]
    assert main(["eval", str(run_folder), "--device", "cpu", *flags]) == 0
    request = calls[0]
    assert isinstance(request, EvaluateRequest)
    assert request.base and request.generate and request.max_samples == 9
    assert request.data == ("rows.jsonl",)
    assert request.sampling == Sampling(temperature=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "88 rows of those that training set aside, 2 left out (nothing to learn within cutoff_len)"
    )
    assert lines[1].split() == ["tuned", "base"]
    assert lines[2].split() == ["loss", "(nats", "a", "token)", "2.5", "no", "number"]
    assert lines[4].split() == ["token", "accuracy", "50.00%", "20.00%"]


def test_an_evaluation_for_programs_is_json(
    run_folder: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run_folder), "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["results"][0]["metrics"]["eval_loss"] == 2.5
    assert told["results"][1]["metrics"]["eval_loss"] is None


@pytest.mark.parametrize(
    "flags",
    [
        ["--temperature", "-1"], ["--temperature", "nan"], ["--top-p", "2"], ["--seed", "x"],
        ["--max-samples", "0"], ["--batch-size", "0"], ["--max-new-tokens", "0"],
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(flags: list[str], run_folder: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(run_folder), *flags])
    assert ended.value.code == 2


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_of_a_terminal_and_clears_it() -> None:
    out = _Terminal()
    with ProgressLine(out) as line:
        line.show(Progress("measuring", 1, 3))
        line.show(Progress("measuring", 2, 3))
    assert out.getvalue() == "\rmeasuring 1 of 3\x1b[K\rmeasuring 2 of 3\x1b[K\r\x1b[K"


def test_progress_into_a_file_tells_each_thing_once() -> None:
    out = io.StringIO()
    with ProgressLine(out) as line:
        for done in range(1, 4):
            line.show(Progress("measuring", done, 3))
        line.show(Progress("writing"))
    assert out.getvalue() == "measuring 1 of 3\nwriting\n"
