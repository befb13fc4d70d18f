"""Looking at the files that a draft names."""

from pathlib import Path

import pytest

from core.data_size import CountStoppedError, RowCounter
from tui import row_count
from tui.draft import Draft, review
from tui.plan import DataCount
from tui.row_count import Names, look, names_of, quick_look

MODEL = "model.model_name_or_path"


def _names(
    folder: Path, *files: str, model: str = "demo", evaluation: tuple[str, ...] = ()
) -> Names:
    return Names(model, files, evaluation, folder)


def _never(data: DataCount) -> bool:
    raise AssertionError("a small file is counted at once")


def test_rows_of_all_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 3)
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    names = _names(tmp_path, "a.jsonl", str(tmp_path / "b.csv"), evaluation=("a.jsonl",))
    data = look(names, RowCounter(), _never)
    assert [f.rows for f in data.train] == [3, 1]
    assert [f.rows for f in data.evaluation] == [3]
    assert data.known
    assert data.problems == ()


def test_the_demo_data_is_known_by_name(tmp_path: Path) -> None:
    assert look(_names(tmp_path, "demo"), RowCounter(), _never).train[0].rows > 0


def test_a_missing_file_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = look(_names(tmp_path / "x", "rows.jsonl"), RowCounter(), _never)
    assert data.problems[0].key == "data.dataset"
    assert data.problems[0].wrong == "rows.jsonl: there is no such file"
    assert data.problems[0].right == f"looked in {tmp_path / 'x'} and {tmp_path}"
    assert not data.known


def test_a_model_that_is_a_path_must_exist(tmp_path: Path) -> None:
    for model in ("./none", "/none/at/all", "model.gguf"):
        data = look(_names(tmp_path, model=model), RowCounter(), _never)
        assert [p.key for p in data.problems] == [MODEL]
    (tmp_path / "model.gguf").write_text("")
    assert look(_names(tmp_path, model="model.gguf"), RowCounter(), _never).problems == ()
    assert look(_names(tmp_path, model="org/model"), RowCounter(), _never).problems == ()


def test_progress_with_a_large_file_is_heard_of_and_can_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import core.data_size

    monkeypatch.setattr(core.data_size, "_REPORT_EVERY", 10)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 9)
    heard: list[DataCount] = []

    def show(data: DataCount) -> bool:
        heard.append(data)
        return True

    look(_names(tmp_path, "a.jsonl"), RowCounter(), show)
    assert heard
    assert all(data.share is not None and data.train[0].rows <= 9 for data in heard)
    with pytest.raises(CountStoppedError):
        look(_names(tmp_path, "a.jsonl"), RowCounter(), lambda _: False)
    assert quick_look(_names(tmp_path, "a.jsonl"), RowCounter()) is None


def test_a_parameter_with_a_problem_of_its_own_names_no_file(tmp_path: Path) -> None:
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", "[1]")
    assert names_of(review(draft), tmp_path) == _names(tmp_path)
    searched = draft.with_text("data.dataset", '["a.json", "b.json"]').with_space(
        MODEL, "demo, other"
    )
    assert names_of(review(searched), tmp_path) == Names("", ("a.json", "b.json"), (), tmp_path)
    assert row_count.names_of(review(Draft()), tmp_path) == Names("", (), (), tmp_path)
