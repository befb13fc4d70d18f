import gzip
import json
import math
from pathlib import Path

import pytest

from bench.search.doctor import main


def write(folder: Path, runs: list[tuple[list[float | None], list[float | None]]]) -> None:
    entries = [
        {"hp": {"learning_rate": 1e-3}, "train": {"loss": train}, "valid": {"loss": valid}}
        for train, valid in runs
    ]
    with gzip.open(folder / "task.json.gz", "wt", encoding="utf-8") as file:
        json.dump(entries, file)


def test_silence_about_good_runs_and_hits_on_lost_ones_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good: list[float | None] = [0.3 + 0.4 * math.exp(-n / 10) for n in range(51)]
    lost: list[float | None] = [*good[:20], *[None] * 31]
    write(tmp_path, [(good, good), (lost, lost), (good, good), (lost, lost), (lost, lost)])
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = next(line for line in lines if line.startswith("all")).split()
    assert total[1:9] == ["1", "1", "0.0", "%", "3", "100.0", "%", "0"]
    assert "what was said of those that diverged:  diverging 3" in lines


def test_a_folder_without_curves_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
    assert "no curves" in capsys.readouterr().err
