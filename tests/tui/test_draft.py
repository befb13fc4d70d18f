"""A profile while it is edited."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.profile import ProfileError, load, loads, ready_made, save
from tui.draft import (
    Draft,
    History,
    changed_key,
    editable,
    from_profile,
    open_file,
    review,
    text_of,
)

BASE = Draft().with_text("model.model_name_or_path", "demo").with_text("data.dataset", "demo")
RATE = "train.learning_rate"


def test_an_empty_draft_asks_for_a_model_and_data() -> None:
    assert list(review(Draft()).problems) == ["model.model_name_or_path", "data.dataset"]


def test_a_valid_draft_is_a_profile() -> None:
    checked = review(BASE.with_text(RATE, "3e-4"))
    assert checked.problems == {}
    assert checked.profile is not None
    assert checked.profile.train.learning_rate == 3e-4


def test_each_key_that_is_typed_is_checked() -> None:
    wrong = []
    text = ""
    for letter in "1e-4":
        text += letter
        wrong.append(RATE in review(BASE.with_text(RATE, text)).problems)
    assert wrong == [False, True, True, False]


def test_a_problem_says_what_would_be_right() -> None:
    problem = review(BASE.with_text("train.warmup_ratio", "2")).problems["train.warmup_ratio"]
    assert problem.wrong == "2 is not allowed"
    assert "below 1" in problem.right


def test_values_that_do_not_go_together_are_a_problem_of_the_right_line() -> None:
    draft = BASE.with_text("method.finetuning_type", "full").with_text(
        "model.quantization_bit", "4"
    )
    assert list(review(draft).problems) == ["model.quantization_bit"]


def test_joint_problems_are_found_beside_wrong_fields() -> None:
    draft = Draft().with_text("data.val_size", "0").with_text("train.early_stopping_patience", "3")
    assert list(review(draft).problems) == [
        "model.model_name_or_path",
        "data.dataset",
        "train.early_stopping_patience",
    ]


def test_a_searched_parameter_becomes_an_entry_of_the_space() -> None:
    checked = review(
        BASE.with_space(RATE, "1e-5 .. 1e-3 log").with_space("method.lora_rank", "8, 16")
    )
    assert checked.profile is not None
    assert set(checked.profile.search.space) == {"learning_rate", "lora_rank"}


def test_a_wrong_entry_is_a_problem_of_the_searched_parameter() -> None:
    draft = BASE.with_space(RATE, "fast")
    assert "not allowed" in review(draft).problems[RATE].wrong
    grid = BASE.with_space(RATE, "1e-5 .. 1e-3").with_text("search.strategy", "grid")
    assert "a grid needs a list" in review(grid).problems[RATE].wrong


def test_unmarking_and_defaults_bring_the_first_draft_back() -> None:
    draft = BASE.with_space(RATE, "1e-5, 1e-4").with_text("train.max_steps", "7")
    assert draft.without_space(RATE).with_default("train.max_steps") == BASE


def test_text_equal_to_the_default_is_no_change() -> None:
    assert BASE.with_text(RATE, "1").with_text(RATE, BASE.text(RATE)) == BASE
    assert BASE.is_default(RATE)


def test_an_optional_parameter_is_unset_by_empty_text() -> None:
    draft = BASE.with_text("train.max_steps", "5")
    assert review(draft).values["train.max_steps"] == 5
    assert review(draft.with_text("train.max_steps", "")).values["train.max_steps"] is None


def test_a_parameter_applies_when_some_trial_makes_it_apply() -> None:
    layers = next(p for p in editable() if p.key == "method.freeze_trainable_layers")
    assert not review(BASE).applies(layers)
    assert review(BASE.with_space("method.finetuning_type", "lora, freeze")).applies(layers)


@pytest.mark.parametrize("path", ready_made(), ids=lambda p: p.stem)
def test_a_ready_made_profile_survives_the_form(path: Path) -> None:
    profile = load(path)
    draft, left_out = open_file(path)
    assert left_out == []
    assert review(draft).profile == profile


def test_a_profile_with_comments_and_a_space_is_opened_changed_and_saved(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        """# my profile
[profile]
name = "mine"           # a name
notes = \"\"\"two
lines\"\"\"
[model]
model_name_or_path = "demo"
[data]
dataset = ["demo", "demo"]
[train]
learning_rate = 0.00012345678901
lr_scheduler_kwargs = { num_cycles = 2 }
[resources]
devices = [0, "GPU-1"]
[search.space]
learning_rate = { low = 1e-5, high = 1e-3, scale = "log" }
lora_target = ["all", "q_proj,v_proj"]
"""
    )
    draft, _ = open_file(file)
    profile = review(draft).profile
    assert profile == load(file)
    changed = review(draft.with_text("train.max_steps", "5")).profile
    assert changed is not None
    save(changed, tmp_path / "other.toml")
    assert load(tmp_path / "other.toml") == load(file).with_changes({"train.max_steps": 5})


def test_edited_notes_keep_their_line_breaks() -> None:
    profile = loads(
        '[profile]\nnotes = "a\\nb"\n[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
    )
    draft = from_profile(profile)
    changed = review(draft.with_text("profile.notes", draft.text("profile.notes") + " c")).profile
    assert changed is not None
    assert changed.profile.notes == "a\nb c"


def test_a_profile_with_mistakes_opens_with_them(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(
        '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
        '[train]\nlearning_rate = "fast"\nlerning_rate = 1\n[search.space]\nlora_rank = "often"\nrankk = [1]\n'
    )
    draft, left_out = open_file(file)
    assert draft.text(RATE) == "fast"
    assert set(review(draft).problems) == {RATE, "method.lora_rank"}
    assert any("lerning_rate" in text for text in left_out)
    assert any("rankk" in text for text in left_out)


def test_article_keys_of_a_profile_with_mistakes_open_as_the_space(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(
        '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n[train]\nlearning_rate = "fast"\n'
        "[search]\nmax_search_trials = 5\ntrials = 6\nlora_rank_list = [8, 16]\n"
    )
    draft, left_out = open_file(file)
    assert draft.space == {"method.lora_rank": "8, 16"}
    assert draft.text("search.trials") == "6"
    assert len(left_out) == 1
    assert "search.max_search_trials: 5 contradicts search.trials = 6" in left_out[0]


def test_a_file_that_is_no_toml_cannot_be_opened(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("learning_rate = = 3")
    with pytest.raises(ProfileError, match="not valid TOML"):
        open_file(file)


def test_how_a_profile_was_tuned_is_forgotten_when_it_changes() -> None:
    profile = loads(
        '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n[tuned]\nstudy = "s"\ntrial = 3\n'
    )
    draft = from_profile(profile)
    assert review(draft).profile == profile
    changed = review(draft.with_text(RATE, "1e-3")).profile
    assert changed is not None
    assert changed.tuned is None


def test_relative_paths_become_absolute_from_the_drafts_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    draft = (
        Draft(folder=tmp_path)
        .with_text("model.model_name_or_path", "demo")
        .with_text("data.dataset", "rows.jsonl")
    )
    profile = review(draft).profile
    assert profile is not None
    assert profile.data.dataset == str(tmp_path / "rows.jsonl")


def test_undo_and_redo_walk_through_the_drafts() -> None:
    history = History(BASE)
    one = BASE.with_text(RATE, "1e-3")
    two = one.with_space("method.lora_rank", "8, 16")
    history = history.then(one).then(two)
    assert history.undo().present == one
    assert history.undo().undo().undo().present == BASE
    assert history.undo().redo().present == two
    assert history.undo().then(BASE).redo().present == BASE
    assert history.then(two) is history


def test_the_changed_parameter_is_found() -> None:
    assert changed_key(BASE, BASE.with_text(RATE, "1")) == RATE
    assert changed_key(BASE, BASE.with_space("method.lora_rank", "8, 16")) == "method.lora_rank"
    assert changed_key(BASE, BASE) is None


@pytest.mark.parametrize("parameter", editable(), ids=lambda p: p.key)
def test_every_default_is_read_back_from_its_text(parameter: object) -> None:
    assert hasattr(parameter, "required")
    if not parameter.required:
        assert parameter.parse(text_of(parameter, parameter.default)) == parameter.default  # type: ignore[arg-type, attr-defined]


@given(
    st.dictionaries(st.sampled_from([p.key for p in editable()]), st.text(max_size=12), max_size=6)
)
def test_whatever_is_typed_a_draft_can_be_reviewed(typed: dict[str, str]) -> None:
    draft = BASE
    for key, text in typed.items():
        draft = draft.with_text(key, text)
    checked = review(draft)
    assert (checked.profile is None) == bool(checked.problems)
    if checked.profile is not None:
        again = review(from_profile(checked.profile)).profile
        assert again == checked.profile
