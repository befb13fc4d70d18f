"""Settings of a trial as a person types them."""

import pytest

from tui.trial_settings import SettingsError, parse_settings, problem, settings_text


def test_pairs_are_read_as_the_parameters_types() -> None:
    text = "learning_rate=3e-4, lora_rank=16  lr_scheduler_type=cosine use_rslora=yes"
    assert parse_settings(text) == {
        "learning_rate": 3e-4,
        "lora_rank": 16,
        "lr_scheduler_type": "cosine",
        "use_rslora": True,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing is set yet"),
        ("learning_rate", "write name=value"),
        ("learning_rat=1", "did you mean"),
        ("learning_rate=fast", "is not allowed"),
        ("lora_rank=2.5", "a whole number"),
        ("learning_rate=1e-4 learning_rate=2e-4", "given twice"),
        ("data.dataset=x", "cannot differ between the trials"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_settings(text)
    assert words in (problem(text) or "")


def test_settings_are_written_as_they_are_read() -> None:
    settings = {"learning_rate": 3e-4, "use_rslora": False, "lora_rank": 8}
    assert parse_settings(settings_text(settings)) == settings
