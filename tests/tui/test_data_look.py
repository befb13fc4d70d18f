"""A look at data grows message by message, and is good for a profile until its data changes."""

from core.profile import load, resolve
from core.study.preview import Failed, Progress
from tests.tui.fake_data import ALL, BEGAN, COUNTED, EXAMPLES
from tui.data_look import DataLook, same_data


def test_messages_add_up() -> None:
    look = DataLook()
    for told in ALL:
        assert not look.ended
        look = look.with_told(told)
    assert look.ended and look.began == BEGAN and look.counted == COUNTED
    assert look.examples[:3] == EXAMPLES and look.progress is None


def test_a_failure_ends_it_and_keeps_what_was_there() -> None:
    look = DataLook().with_told(BEGAN).with_told(EXAMPLES[0]).with_told(Progress("counting"))
    ended = look.with_told(Failed("row 7: output is missing"))
    assert ended.ended and ended.problem == "row 7: output is missing"
    assert ended.examples == EXAMPLES[:1] and ended.progress is None


def test_what_the_data_depends_on() -> None:
    profile = load(resolve("lora-small"))
    assert same_data(profile, profile.with_changes({"train.learning_rate": 1e-3}))
    for change in (
        {"data.cutoff_len": 64},
        {"data.packing": True},
        {"model.template": "chatml"},
        {"train.data_seed": 7},
        {"method.stage": "pt"},
    ):
        assert not same_data(profile, profile.with_changes(change)), change
