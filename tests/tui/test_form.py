"""Which lines the form has and what they say; the explanation beside it."""

import pytest

from core.catalogue import find, parameters
from tui.ascii_text import ascii_text
from tui.draft import SPACE, Draft, from_profile, review
from tui.explain import as_text, explain
from tui.form import Field, Group, Shown, lines

BASE = Draft().with_text("model.model_name_or_path", "demo").with_text("data.dataset", "demo")


def fields(draft: Draft, shown: Shown | None = None) -> dict[str, Field]:
    checked = review(draft)
    listed = lines(draft, checked, checked.problems, shown or Shown())
    return {entry.key: entry for entry in listed if isinstance(entry, Field)}


def test_every_parameter_can_be_shown() -> None:
    everything = fields(BASE, Shown(advanced=True, without_effect=True))
    assert list(everything) == [p.key for p in parameters() if p.table != "tuned"]


def test_a_winner_shows_how_it_was_tuned() -> None:
    from core.profile import loads

    text = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n[tuned]\ntrial = 7\n'
    shown = fields(from_profile(loads(text)))
    assert shown["tuned.trial"].value == "7"


def test_what_experts_need_and_what_has_no_effect_is_hidden_at_first() -> None:
    shown = fields(BASE)
    assert "train.adam_beta1" not in shown
    assert "method.freeze_trainable_layers" not in shown
    assert "train.learning_rate" in shown
    assert "train.adam_beta1" in fields(BASE, Shown(advanced=True))
    without_effect = fields(BASE, Shown(without_effect=True))["method.freeze_trainable_layers"]
    assert not without_effect.applies
    assert without_effect.hint == "only with finetuning_type = freeze"


def test_what_was_changed_searched_or_is_wrong_is_never_hidden() -> None:
    draft = BASE.with_text("train.adam_beta1", "0.8").with_space("train.adam_beta2", "0.9, 0.99")
    draft = draft.with_text("train.seed", "often")
    shown = fields(draft)
    assert shown["train.adam_beta1"].changed
    assert shown["train.adam_beta2"].searched
    assert shown["train.adam_beta2"].value == "0.9, 0.99"
    assert shown["train.seed"].wrong
    assert "not allowed" in shown["train.seed"].hint


@pytest.mark.parametrize(
    ("stage", "has", "lacks"),
    [
        ("sft", {"data.packing"}, {"alignment.pref_loss", "alignment.reward_model"}),
        ("pt", set(), {"data.packing", "data.train_on_prompt", "alignment.pref_loss"}),
        ("dpo", {"alignment.pref_loss"}, {"data.packing", "alignment.kto_chosen_weight"}),
        ("kto", {"alignment.kto_chosen_weight"}, {"alignment.pref_loss", "data.train_on_prompt"}),
        ("ppo", {"alignment.reward_model"}, {"alignment.pref_loss", "data.packing"}),
    ],
)
def test_a_stage_shows_what_it_needs_and_nothing_else(
    stage: str, has: set[str], lacks: set[str]
) -> None:
    shown = set(fields(BASE.with_text("method.stage", stage)))
    assert has <= shown
    assert not lacks & shown


def test_packed_rows_can_be_kept_apart_wherever_rows_are_packed() -> None:
    shown = fields(BASE.with_text("method.stage", "pt"), Shown(advanced=True))
    assert shown["data.neat_packing"].applies


def test_the_rates_that_work_are_those_of_the_stage() -> None:
    draft = BASE.with_text("method.stage", "dpo")
    hint = "5e-7 – 5e-5, start at 5e-6"
    assert fields(draft)["train.learning_rate"].hint == hint
    checked = review(draft)
    facts = explain(find("learning_rate"), draft, checked, checked.problems).facts
    assert ("Works", hint) in facts


def test_a_search_looks_at_hidden_parameters_too() -> None:
    found = fields(BASE, Shown(query="freeze layers"))
    assert "method.freeze_trainable_layers" in found
    assert "train.learning_rate" not in found
    assert fields(BASE, Shown(query="zzz")) == {}


def test_a_group_without_fields_has_no_heading() -> None:
    checked = review(BASE)
    listed = lines(BASE, checked, {}, Shown(query="learning_rate"))
    assert [entry.title for entry in listed if isinstance(entry, Group)] == ["Training"]


def test_the_field_that_is_being_changed_stays() -> None:
    assert "train.seed" in fields(BASE, Shown(keep="train.seed"))


def test_the_space_names_what_is_searched() -> None:
    draft = BASE.with_space("train.learning_rate", "1e-5, 1e-4").with_space(
        "method.lora_rank", "8, 16"
    )
    assert fields(draft)[SPACE].value == "learning_rate, lora_rank"


@pytest.mark.parametrize(
    "parameter", [p for p in parameters() if p.table != "tuned"], ids=lambda p: p.key
)
def test_every_parameter_is_explained(parameter: object) -> None:
    explained = explain(parameter, BASE, review(BASE), {})  # type: ignore[arg-type]
    text = as_text(explained)
    assert parameter.help in text  # type: ignore[attr-defined]
    assert parameter.key in text  # type: ignore[attr-defined]
    for label in ("Takes", "Default"):
        assert (f"{label}: " in text) == (parameter.key != SPACE)  # type: ignore[attr-defined]


def test_an_explanation_says_what_is_wrong_and_how_a_search_is_written() -> None:
    draft = BASE.with_space("train.learning_rate", "fast")
    checked = review(draft)
    explained = explain(find("learning_rate"), draft, checked, checked.problems, searching=True)
    assert explained.problem == '"fast" is not allowed: a number above 0, at most 100'
    assert "1e-5 .. 1e-3 log" in explained.note
    assert ("Searched", "fast") in explained.facts


def test_every_explanation_can_be_told_in_ascii() -> None:
    for parameter in parameters():
        texts = (parameter.help, parameter.doc.title, parameter.doc.works, parameter.allowed())
        assert all("?" not in ascii_text(text.replace("?", "")) for text in texts), parameter.key
