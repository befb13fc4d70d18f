"""The Configure screen under the hands of a person."""

from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from core.catalogue import parameters
from core.params import TABLES
from core.profile import load, resolve
from tests.tui.screens.configure_app import deck, settle
from tui.draft import editable
from tui.widgets.help_pane import HelpPane
from tui.widgets.plan_bar import PlanBar

SIZES = [(60, 15), (80, 24), (160, 45)]
LORA = resolve("lora-small")
RATE = "train.learning_rate"
STEPS = "train.max_steps"


async def test_every_parameter_is_reached_by_keys_and_explained() -> None:
    async with deck(LORA) as d:
        await d.press("a", "i", "home")
        pane = d.screen.query_one(HelpPane)
        seen = []
        for _ in range(len(parameters())):
            key = d.screen.form.current
            assert key is not None
            assert key in pane.text
            seen.append(key)
            if key == d.screen.form.keys[-1]:
                break
            await d.pilot.press("down")
        assert set(seen) >= {p.key for p in editable()}


@pytest.mark.parametrize("size", SIZES)
async def test_the_current_field_is_always_in_sight(size: tuple[int, int]) -> None:
    async with deck(LORA, size) as d:
        await d.press("a", "i", "home")
        form = d.screen.form
        for direction in (1, -1):
            while form.step(direction):
                assert form.value_region is not None, form.current
        for _ in TABLES:
            form.step_group(1)
            assert form.value_region is not None, form.current


@pytest.mark.parametrize("size", SIZES)
async def test_a_value_is_typed_where_it_stands(size: tuple[int, int]) -> None:
    async with deck(LORA, size) as d:
        await d.at(STEPS)
        await d.press("enter")
        editor = d.screen.editor
        assert editor.has_focus
        assert (
            editor.region.y
            == d.screen.form.region.y + (d.screen.form.value_region or editor.region).y
        )
        await d.write("125")
        assert d.screen.plan.full is not None
        assert str(d.screen.plan.full) == "125"  # While it is typed.
        await d.press("enter")
        assert not editor.is_open
        assert d.screen.draft.text(STEPS) == "125"


async def test_escape_takes_an_edit_back() -> None:
    async with deck(LORA) as d:
        await d.at(STEPS)
        await d.press("enter")
        await d.type("77")
        assert d.screen.draft.text(STEPS) == "77"
        await d.press("escape")
        assert d.screen.draft.text(STEPS) == ""
        assert d.screen.form.has_focus
        assert not d.screen.unsaved


async def test_tab_accepts_and_edits_the_next_field() -> None:
    async with deck(LORA) as d:
        await d.at("train.gradient_accumulation_steps")
        await d.press("enter")
        await d.write("2")
        await d.press("tab")
        assert d.screen.form.current == "train.num_train_epochs"
        assert d.screen.editor.is_open
        await d.write("5")
        await d.press("shift+tab")
        assert d.screen.form.current == "train.gradient_accumulation_steps"
        await d.press("escape")
        assert d.screen.draft.text("train.gradient_accumulation_steps") == "2"
        assert d.screen.draft.text("train.num_train_epochs") == "5"


async def test_digits_and_question_marks_go_into_the_field() -> None:
    async with deck(LORA) as d:
        await d.at("profile.name")
        await d.press("enter")
        await d.type("q12345")
        await d.press("question_mark", "enter")
        assert d.pilot.app.screen is d.screen
        assert d.screen.draft.text("profile.name") == "q12345?"


async def test_a_wrong_value_is_said_at_once_and_kept() -> None:
    async with deck(LORA, (100, 30)) as d:
        await d.at(RATE)
        await d.press("backspace", "enter")
        await d.write("-1")
        assert "a number above 0" in d.screen.query_one(HelpPane).text
        assert "1 problem" in d.screen.query_one(PlanBar).text
        await d.press("enter", "home", "n")
        assert d.screen.form.current == RATE
        assert d.screen.draft.text(RATE) == "-1"
        assert d.screen.profile is None


async def test_a_switch_is_turned_by_enter_and_space() -> None:
    async with deck(LORA) as d:
        await d.at("data.packing")
        await d.press("enter")
        assert d.screen.draft.text("data.packing") == "true"
        await d.press("space")
        assert d.screen.draft.text("data.packing") == "false"


async def test_a_choice_is_picked_from_a_list_or_cycled() -> None:
    async with deck(LORA) as d:
        await d.at("train.lr_scheduler_type")
        await d.press("enter")
        assert d.dialog == "PickDialog"
        await d.type("plateau")
        await d.press("enter")
        assert d.screen.draft.text("train.lr_scheduler_type") == "reduce_lr_on_plateau"
        await d.press("left")
        assert d.screen.draft.text("train.lr_scheduler_type") == "inverse_sqrt"
        await d.press("right", "space")
        assert d.screen.draft.text("train.lr_scheduler_type") == "cosine_with_min_lr"
        await d.at("model.quantization_bit")
        await d.press("space", "space", "space")
        assert d.screen.draft.text("model.quantization_bit") == ""


async def test_a_choice_that_does_not_exist_is_said_and_not_taken() -> None:
    async with deck(LORA) as d:
        await d.at("train.precision")
        await d.press("enter")
        await d.type("fp4")
        listed = d.pick().query_one(OptionList)
        assert "nothing matches" in str(listed.get_option_at_index(0).prompt)
        await d.press("down", "enter")
        assert d.dialog == "PickDialog"
        await d.press("escape")
        assert d.screen.draft.text("train.precision") == "auto"


async def test_escape_leaves_a_choice_as_it_was() -> None:
    async with deck(LORA) as d:
        await d.at("train.precision")
        await d.press("enter", "down", "escape")
        assert d.dialog == "ConfigureScreen"
        assert d.screen.draft.is_default("train.precision")


async def test_a_parameter_is_searched_and_released_again() -> None:
    async with deck(LORA) as d:
        await d.at("method.lora_rank")
        while "method.lora_rank" in d.screen.draft.space:
            await d.press("backspace")
        before = d.screen.plan.possible
        await d.press("x")
        assert d.screen.editor.value == "8, 16, 32, 64"
        await d.write("4, 8")
        assert d.screen.plan.possible == (before or 1) * 2
        await d.press("enter")
        profile = d.screen.profile
        assert profile is not None
        assert profile.search.space["lora_rank"] == [4, 8]
        await d.press("enter")  # What is searched is edited as a search.
        await d.press("ctrl+a", "ctrl+k", "enter")
        assert "method.lora_rank" not in d.screen.draft.space


async def test_what_cannot_be_searched_says_so() -> None:
    async with deck(LORA) as d:
        await d.at("data.dataset")
        await d.press("x")
        assert "cannot be searched" in d.screen.message
        assert not d.screen.editor.is_open


async def test_undo_goes_back_step_by_step_and_shows_where() -> None:
    async with deck(LORA) as d:
        await d.at("data.packing")
        await d.press("space")
        await d.at("train.gradient_checkpointing")
        await d.press("space", "home", "u")
        assert d.screen.form.current == "train.gradient_checkpointing"
        assert d.screen.draft.text("train.gradient_checkpointing") == "false"
        await d.press("u")
        assert not d.screen.unsaved
        await d.press("ctrl+y")
        assert d.screen.draft.text("data.packing") == "true"


async def test_the_filter_finds_parameters_by_words() -> None:
    async with deck(LORA) as d:
        await d.press("slash")
        await d.type("neftune")
        assert d.screen.form.keys == ["train.neftune_noise_alpha"]
        await d.press("enter")
        assert d.screen.form.has_focus
        await d.press("escape")
        assert RATE in d.screen.form.keys


async def test_fields_without_effect_are_hidden_until_they_are_wanted() -> None:
    async with deck(LORA) as d:
        assert "method.freeze_trainable_layers" not in d.screen.form.keys
        await d.press("i")
        assert "method.freeze_trainable_layers" in d.screen.form.keys
        await d.press("i", "a")
        assert "train.adam_beta2" in d.screen.form.keys


async def test_groups_are_walked_by_tab() -> None:
    async with deck(LORA) as d:
        await d.press("home", "tab")
        assert d.screen.form.current == "model.model_name_or_path"
        await d.press("tab", "shift+tab")
        assert d.screen.form.current == "model.model_name_or_path"


async def test_the_whole_explanation_opens_in_a_box() -> None:
    async with deck(LORA, (60, 15)) as d:
        await d.press("h")
        assert d.dialog == "MessageDialog"
        await d.press("escape")
        assert d.dialog == "ConfigureScreen"


# -- files --------------------------------------------------------------------------------------


async def test_rows_are_counted_and_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n' * 40)
    async with deck(LORA, (160, 45)) as d:
        await d.at("data.dataset")
        await d.press("enter")
        await d.write(str(rows))
        await d.press("enter")
        await settle(d.pilot)
        assert str(d.screen.plan.train_rows) == "36"
        rows.unlink()
        await d.press("enter")
        await d.write(str(tmp_path / "rows.json"))
        await d.press("enter")
        await settle(d.pilot)
        # The text is wrapped, and where depends on how long the path of the test's folder is.
        assert "there is no such file" in " ".join(d.screen.query_one(HelpPane).text.split())
        assert list(d.screen.problems) == ["data.dataset"]
        assert d.screen.plan.train_rows is None


async def test_rows_of_another_stage_are_a_problem_of_the_data_set(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text('{"instruction": "a", "chosen": "b", "rejected": "c"}\n' * 40)
    async with deck(LORA, (160, 45)) as d:
        await d.at("data.dataset")
        await d.press("enter")
        await d.write(str(rows))
        await d.press("enter")
        await settle(d.pilot)
        wrong = d.screen.problems["data.dataset"].wrong
        assert f"{rows}, row 1: has chosen and rejected answers" in wrong
        assert 'set method.stage = "dpo"' in wrong
        # Mended in the file itself, as somebody may in another window; the form looks again after any change of a name.
        rows.write_text('[{"instruction": "a", "output": "b"}]')
        await d.press("enter")
        await d.write(f"{rows}, demo")
        await d.press("enter")
        await settle(d.pilot)
        assert d.screen.problems == {} and d.screen.plan.train_rows is not None


async def test_a_model_that_can_only_be_a_path_must_exist(tmp_path: Path) -> None:
    async with deck(LORA) as d:
        await d.at("model.model_name_or_path")
        await d.press("enter")
        await d.write(str(tmp_path / "gone.gguf"))
        await d.press("enter")
        await settle(d.pilot)
        assert "no such folder or file" in d.screen.problems["model.model_name_or_path"].wrong


async def test_a_ready_made_profile_is_picked() -> None:
    async with deck(None, (160, 45)) as d:
        assert list(d.screen.problems) == ["model.model_name_or_path", "data.dataset"]
        await d.press("o")
        await d.pilot.pause()
        d.pick()
        await d.type("qlora-7b-24gb")
        await d.press("enter")
        await settle(d.pilot)
        assert d.screen.draft.text("profile.name") == "qlora-7b-24gb"
        assert d.screen.problems == {}


async def test_profiles_of_this_folder_are_listed_and_a_path_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = (
        '[profile]\nname = "mine"\n[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
    )
    (tmp_path / "mine.toml").write_text(mine)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    async with deck(LORA, (160, 45)) as d:
        await d.press("o")
        await d.pilot.pause()
        titles = [c.title for c in d.pick()._choices]
        assert "./mine.toml" in titles
        assert "./pyproject.toml" not in titles
        await d.type("./mine.toml")
        await d.press("enter")
        assert d.screen.draft.text("profile.name") == "mine"


async def test_unsaved_changes_are_asked_about() -> None:
    async with deck(LORA, (160, 45)) as d:
        await d.at("data.packing")
        await d.press("space", "o")
        await d.pilot.pause()
        await d.type("full-small")
        await d.press("enter")
        assert d.dialog == "ConfirmDialog"
        await d.press("n")
        assert d.screen.draft.text("profile.name") == "lora-small"
        await d.press("o")
        await d.pilot.pause()
        await d.type("full-small")
        await d.press("enter", "y")
        assert d.screen.draft.text("profile.name") == "full-small"


async def test_quitting_with_unsaved_changes_is_asked_about() -> None:
    async with deck(LORA) as d:
        await d.at("data.packing")
        await d.press("space", "q")
        assert d.dialog == "ConfirmDialog"
        await d.press("n")
        assert d.pilot.app.is_running and d.screen.unsaved
        await d.press("ctrl+c", "ctrl+c")
        assert d.pilot.app._exit, "twice means it"


async def test_quitting_without_changes_or_once_they_are_started_is_not_asked_about() -> None:
    async with deck(LORA) as d:
        assert not d.screen.may_lose
        await d.at("data.packing")
        await d.press("space")
        assert d.screen.may_lose
        await d.press("r")
        await settle(d.pilot)
        await d.press("y")
        assert len(d.started) == 1 and not d.screen.may_lose
        await d.press("q")
        assert d.pilot.app._exit


async def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    async with deck(tmp_path / "none.toml") as d:
        assert d.dialog == "MessageDialog"
        await d.press("escape")
        assert d.dialog == "ConfigureScreen"


async def test_a_profile_is_saved_and_overwriting_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with deck(LORA) as d:
        await d.at(STEPS)
        await d.press("enter")
        await d.write("9")
        await d.press("enter", "w")
        await d.pilot.pause()
        assert d.pilot.app.screen.query_one(Input).value == "lora-small.toml"
        await d.press("enter")
        await d.pilot.pause()
        assert load(tmp_path / "lora-small.toml") == d.screen.profile
        assert not d.screen.unsaved
        assert "lora-small.toml" in d.screen.message
        await d.press("backspace", "w")
        await d.pilot.pause()
        await d.press("enter")
        assert d.dialog == "ConfirmDialog"
        await d.press("n")
        assert load(tmp_path / "lora-small.toml").train.max_steps == 9
        await d.press("w")
        await d.pilot.pause()
        await d.press("enter", "y")
        await d.pilot.pause()
        assert load(tmp_path / "lora-small.toml").train.max_steps is None


# -- start --------------------------------------------------------------------------------------


async def test_a_search_starts_after_a_question() -> None:
    async with deck(LORA) as d:
        await d.press("r")
        await d.pilot.pause()
        assert d.dialog == "ConfirmDialog"
        await d.press("n")
        assert d.started == []
        await d.press("r")
        await d.pilot.pause()
        await d.press("y")
        assert d.started == [d.screen.profile]


async def test_start_is_refused_with_all_problems_and_goes_to_the_first() -> None:
    async with deck(None) as d:
        await d.press("end", "r")
        await d.pilot.pause()
        assert d.dialog == "MessageDialog"
        await d.press("enter")
        assert d.screen.form.current == "model.model_name_or_path"
        assert d.started == []


async def test_a_file_that_vanished_is_found_out_at_the_start(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n' * 40)
    async with deck(LORA) as d:
        await d.at("data.dataset")
        await d.press("enter")
        await d.write(str(rows))
        await d.press("enter")
        await settle(d.pilot)
        rows.unlink()
        await d.press("r")
        await d.pilot.pause()
        assert d.dialog == "MessageDialog"
        assert d.started == []


async def test_without_a_search_it_is_one_training_or_the_rate_is_marked() -> None:
    async with deck(LORA) as d:
        for key in list(d.screen.draft.space):
            await d.at(key)
            await d.press("backspace")
        await d.press("r")
        await d.pilot.pause()
        d.pick()
        await d.press("down", "enter")
        assert d.screen.form.current == RATE
        assert d.screen.editor.value == "3e-5 .. 1e-3 log"
        await d.press("escape", "r")
        await d.pilot.pause()
        await d.press("enter")
        assert d.started == [d.screen.profile]
        assert d.started[0].search.space == {}


# -- mouse, colour, traffic ---------------------------------------------------------------------


async def test_a_click_moves_and_a_second_one_edits() -> None:
    async with deck(LORA) as d:
        form = d.screen.form
        await d.pilot.click(form, offset=(30, 2))
        assert form.current == "profile.notes"
        assert not d.screen.editor.is_open
        await d.pilot.click(form, offset=(30, 2))
        await d.pilot.pause()
        assert d.screen.editor.is_open


async def test_a_click_elsewhere_accepts_what_was_typed() -> None:
    async with deck(LORA) as d:
        await d.at(STEPS)
        await d.press("enter")
        await d.type("5")
        await d.pilot.click(d.screen.form, offset=(5, 1))
        await d.pilot.pause()
        assert not d.screen.editor.is_open
        assert d.screen.draft.text(STEPS) == "5"


async def test_ascii_shows_nothing_else() -> None:
    async with deck(LORA, (160, 45), ascii=True) as d:
        await d.press("i", "a", "home")
        for _ in range(4):
            for widget in (
                d.screen.form,
                d.screen.query_one(HelpPane),
                d.screen.query_one(PlanBar),
            ):
                for y in range(widget.size.height):
                    assert widget.build_line(y, widget.size.width).text.isascii()
            await d.pilot.press("pagedown")


async def test_nothing_is_repainted_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with deck(LORA) as d:
        painted: list[object] = []
        monkeypatch.setattr(d.screen.form, "refresh", lambda *regions, **_: painted.append(regions))
        d.screen._show(keep=d.screen.form.current or "")
        assert painted == []
        d.screen.form.step(1)
        await d.pilot.pause()
        assert painted
        assert all(region.height == 1 for regions in painted for region in regions)  # type: ignore[attr-defined]


async def test_the_list_of_choices_holds_every_schedule() -> None:
    async with deck(LORA, (160, 45)) as d:
        await d.at("train.lr_scheduler_type")
        await d.press("enter")
        assert d.pick().query_one(OptionList).option_count == 12
