"""Looking at the files that a draft names."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.data_size import CountStoppedError, RowCounter
from core.dataset_info import DEMO_SETS
from core.rows.first import Wanted
from tui import row_count
from tui.draft import Draft, review
from tui.plan import DataCount, plan
from tui.row_count import Names, look, names_of, quick_look

MODEL = "model.model_name_or_path"
ROW = '{"instruction": "a", "output": "b"}\n'


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


def test_a_reward_model_must_exist_where_answers_are_scored(tmp_path: Path) -> None:
    draft = Draft().with_text("alignment.reward_model", "judge").with_text(MODEL, "demo")
    assert names_of(review(draft), tmp_path).reward_model == ""
    names = names_of(review(draft.with_text("method.stage", "ppo")), tmp_path)
    (problem,) = look(names, RowCounter(), _never).problems
    assert problem.key == "alignment.reward_model"
    assert problem.wrong == "there is no folder judge"
    (tmp_path / "judge").mkdir()
    assert look(names, RowCounter(), _never).problems == ()


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
    fits = Wanted("sft", "auto")
    assert names_of(review(draft), tmp_path) == replace(_names(tmp_path), rows=fits)
    searched = draft.with_text("data.dataset", '["a.json", "b.json"]').with_space(
        MODEL, "demo, other"
    )
    wanted = Names("", ("a.json", "b.json"), (), tmp_path, rows=fits)
    assert names_of(review(searched), tmp_path) == wanted
    empty = Names("", (), (), tmp_path, rows=fits)
    assert row_count.names_of(review(Draft()), tmp_path) == empty


def test_named_data_sets_folders_and_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text('{"a": 1}\n' * 4)
    (tmp_path / "data" / "more.txt").write_text("one\ntwo\n")
    (tmp_path / "data" / "dataset_info.json").write_text(
        '{"mine": {"file_name": "rows.jsonl", "num_samples": 9}, "hub": {"hf_hub_url": "a/b"}}'
    )
    data = look(_names(tmp_path, "mine", "data", "demo-pairs"), RowCounter(), _never)
    assert [(f.rows, f.wanted) for f in data.train] == [(4, 9), (6, None), (480, None)]
    assert data.problems == ()
    (problem,) = look(_names(tmp_path, "hub"), RowCounter(), _never).problems
    assert "hub in " in problem.wrong and "download it first" in problem.right


def test_what_a_draft_says_of_mixing_goes_into_its_steps(tmp_path: Path) -> None:
    for name, rows in (("a.jsonl", 90), ("b.jsonl", 30)):
        (tmp_path / name).write_text(ROW * rows)
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", '["a.jsonl", "b.jsonl"]')
    draft = draft.with_text("data.val_size", "0").with_text("data.mix_strategy", "interleave_under")
    draft = draft.with_text("data.interleave_probs", "[0.5, 0.5]")
    looked = review(draft)
    data = look(names_of(looked, tmp_path), RowCounter(), _never)
    assert (data.strategy, data.weights) == ("interleave_under", (0.5, 0.5))
    assert str(plan(looked, data).train_rows) == "60"
    over = review(draft.with_text("data.mix_strategy", "interleave_over"))
    counted = look(names_of(over, tmp_path), RowCounter(), _never)
    assert str(plan(over, counted).train_rows) == "180"


def test_a_stream_is_not_counted_and_its_steps_are_known_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW * 9)
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", "a.jsonl")
    for key, value in (
        ("data.streaming", "true"),
        ("data.val_size", "0"),
        ("train.max_steps", "7"),
    ):
        draft = draft.with_text(key, value)
    looked = review(draft)
    data = look(names_of(looked, tmp_path), RowCounter(), _never)
    assert data.train == () and data.problems == ()
    assert str(plan(looked, data).full) == "7"
    missing = names_of(review(draft.with_text("data.dataset", "none.jsonl")), tmp_path)
    assert look(missing, RowCounter(), _never).problems[0].key == "data.dataset"


@pytest.mark.parametrize("stage", ["pt", "sft"])
def test_packed_rows_are_counted_as_the_sequences_that_they_fill(
    tmp_path: Path, stage: str
) -> None:
    name = "demo-text" if stage == "pt" else "demo"
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", name)
    for key, value in (
        ("method.stage", stage), ("data.packing", "true"), ("data.val_size", "0"), ("data.cutoff_len", "128"),
        ("train.per_device_train_batch_size", "2"), ("train.gradient_accumulation_steps", "1"),
    ):  # fmt: skip
        draft = draft.with_text(key, value)
    looked = review(draft)
    found = plan(looked, look(names_of(looked, tmp_path), RowCounter(), _never))
    size = DEMO_SETS[name].stat().st_size
    assert found.epoch is not None and found.epoch.about
    assert found.epoch.low == pytest.approx(size / 4 / 128 / 2, abs=1)


def test_rows_of_another_stage_are_a_problem_of_their_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(ROW * 3)
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", "demo-pairs")
    draft = draft.with_text("data.eval_dataset", "a.json").with_text("method.stage", "dpo")
    (problem,) = look(names_of(review(draft), tmp_path), RowCounter(), _never).problems
    assert problem.key == "data.eval_dataset"
    assert f"{tmp_path / 'a.json'}, row 1: chosen and rejected are missing" in problem.wrong
    assert 'set method.stage = "sft"' in problem.wrong
    # The same rows fit the stage that they are for, and are counted whatever the file is called.
    other = draft.with_text("method.stage", "sft").with_text("data.dataset", "a.json")
    data = look(names_of(review(other), tmp_path), RowCounter(), _never)
    assert data.problems == () and [f.rows for f in (*data.train, *data.evaluation)] == [3, 3]


@pytest.mark.parametrize(
    ("key", "space"), [("method.stage", "rm, dpo"), ("data.format", "auto, alpaca")]
)
def test_rows_are_not_looked_at_where_a_search_decides_how_they_are_read(
    tmp_path: Path, key: str, space: str
) -> None:
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", "demo-pairs")
    (problem,) = look(names_of(review(draft), tmp_path), RowCounter(), _never).problems
    assert "has chosen and rejected answers" in problem.wrong
    names = names_of(review(draft.with_space(key, space)), tmp_path)
    assert names.rows is None and look(names, RowCounter(), _never).problems == ()


def test_rows_are_not_looked_at_while_the_stage_itself_is_wrong(tmp_path: Path) -> None:
    draft = Draft().with_text(MODEL, "demo").with_text("data.dataset", "demo")
    names = names_of(review(draft.with_text("method.stage", "no-stage")), tmp_path)
    assert names.rows is None and look(names, RowCounter(), _never).problems == ()
