"""The dashboard's real source of data looks: errors become sentences."""

from pathlib import Path

import pytest

from core.engine import preview
from core.study.preview import Began, PreviewRequest, Told, encode
from tui.source import DiskSource, SourceError

BEGAN = Began("sft", "plain", 1, 0, 8, packed=False)


def test_a_process_that_dies_becomes_an_error_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    line = encode(BEGAN)
    program.write_text(f"import sys; sys.stdout.buffer.write({line!r}); sys.exit('no more memory')")
    monkeypatch.setattr(preview, "_PROGRAM", program)
    told: list[Told] = []
    with (
        pytest.raises(SourceError, match="no more memory"),
        DiskSource().preview(PreviewRequest({})) as looked,
    ):
        told.extend(looked)
    assert told == [BEGAN]


def test_a_process_that_cannot_start_becomes_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with (
        pytest.raises(SourceError, match="cannot be started"),
        DiskSource().preview(PreviewRequest({})),
    ):
        pass
