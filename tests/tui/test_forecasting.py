"""The forecast of a draft: what is asked for when, and what a proof holds for."""

from dataclasses import replace
from pathlib import Path

from core.data_size import FileSize
from core.memory.forecast import Lengths
from core.params import SearchTable
from core.profile import Profile, load, resolve
from tests.tui.fake_memory import GIB, RTX, FakeDesk, card, forecast
from tui.forecasting import FRESH_SECONDS, Forecasting, lengths_of, varies
from tui.plan import DataCount

NONE = DataCount()


def profile(**train: object) -> Profile:
    found = replace(load(resolve("lora-small")), search=SearchTable())
    return replace(found, train=found.train.model_copy(update=train))


def known(desk: FakeDesk, about: Profile | None = None) -> Forecasting:
    made = Forecasting(desk)
    made.take(made.look(about or profile(), 0.0))
    return made


def test_it_is_looked_once_for_a_model_and_again_for_devices_when_they_are_old() -> None:
    made = Forecasting(FakeDesk())
    assert made.lacks(profile(), 0.0)
    made.take(made.look(profile(), 0.0))
    assert not made.lacks(profile(learning_rate=1e-5), 1.0)
    assert made.lacks(profile(), FRESH_SECONDS + 1)
    other = profile()
    other = replace(other, model=other.model.model_copy(update={"model_name_or_path": "other"}))
    assert made.lacks(other, 1.0)


def test_the_forecast_follows_the_draft() -> None:
    made = known(FakeDesk())
    small = made.view(profile(per_device_train_batch_size=1), NONE, "")
    large = made.view(profile(per_device_train_batch_size=16), NONE, "")
    assert small.counts is not None and large.counts is not None
    assert (small.counts.label, small.counts.verdict) == ("GPU 1", "fits")
    assert large.counts.verdict == "over"


def test_a_draft_that_is_wrong_keeps_the_last_forecast_as_an_old_one() -> None:
    made = known(FakeDesk())
    assert (
        made.view(None, NONE, "the forecast needs a model").problem == "the forecast needs a model"
    )
    shown = made.view(profile(), NONE, "")
    assert made.view(None, NONE, "1 problem") == replace(shown, stale="before the problem")


def test_an_unreadable_model_says_why_and_is_tried_again() -> None:
    desk = FakeDesk(problem="/models/x has no config.json")
    made = known(desk)
    assert made.view(profile(), NONE, "").problem == "no forecast: /models/x has no config.json"
    assert made.decisive(profile(), NONE) is None
    desk.problem = ""
    made.take(made.look(profile(), 10.0))
    assert made.view(profile(), NONE, "").lines


def test_gpus_that_the_profile_names_and_that_are_not_here() -> None:
    made = known(FakeDesk())
    found = profile()
    named = replace(found, resources=found.resources.model_copy(update={"devices": [7]}))
    assert "none of the GPUs" in made.view(named, NONE, "").problem


def test_the_cpu_counts_where_there_is_no_gpu_or_none_is_wanted() -> None:
    alone = known(FakeDesk(cards=())).view(profile(), NONE, "").counts
    assert alone is not None and (alone.label, alone.room) == ("CPU", 40 * GIB)
    found = profile()
    unwanted = replace(found, resources=found.resources.model_copy(update={"devices": "cpu"}))
    limited = replace(unwanted, memory=unwanted.memory.model_copy(update={"limit_gib": 8.0}))
    line = known(FakeDesk()).view(limited, NONE, "").counts
    assert line is not None and (line.label, line.verdict, line.room) == ("CPU", "over", 8 * GIB)


def test_a_gpu_in_use_by_others_comes_last() -> None:
    busy = card(0, "NVIDIA A100-SXM4-80GB", 79.2, used=75)
    view = known(FakeDesk(cards=(busy, RTX))).view(profile(), NONE, "")
    assert [(line.label, line.busy) for line in view.lines] == [("GPU 1", False), ("GPU 0", True)]


def test_a_proof_takes_the_estimates_place_until_memory_would_be_another() -> None:
    made = known(FakeDesk())
    asked = made.decisive(profile(), NONE)
    assert asked is not None
    device, training, _ = asked
    made.take_proof(training, device.target, forecast(2, proven=True, weights=6.5))
    for same in (profile(), profile(learning_rate=1e-6, num_train_epochs=7.0)):
        line = made.view(same, NONE, "").counts
        assert line is not None and (line.source, line.numbers) == ("proven", "10.5 of 23.6 GiB")
    other = made.view(profile(per_device_train_batch_size=1), NONE, "").counts
    assert other is not None and other.source == "estimate"
    back = made.view(profile(), NONE, "").counts
    assert back is not None and back.proven


def test_of_a_search_the_trial_that_needs_most_is_the_one_to_prove() -> None:
    found = profile()
    space = {"per_device_train_batch_size": [1, 16], "learning_rate": [1e-4, 1e-5]}
    searched = replace(found, search=SearchTable.model_validate({"space": space}))
    asked = known(FakeDesk()).decisive(searched, NONE)
    assert asked is not None
    device, training, _ = asked
    assert training.train.per_device_train_batch_size == 16
    assert device.label == "GPU 1"


def test_measured_rows_are_estimated_with_as_far_as_the_measure_reaches() -> None:
    made = known(FakeDesk())
    found = profile()
    length = found.data.cutoff_len

    def cut(most: int) -> Profile:
        return replace(found, data=found.data.model_copy(update={"cutoff_len": most}))

    made.take_lengths(found, Lengths(96, 80))
    assert made.lengths(found, NONE) == Lengths(length, length)  # That was no measure.
    made.take_lengths(found, Lengths(96, 80, measured=True))
    assert made.lengths(found, NONE) == Lengths(96, 80, measured=True)
    assert made.lengths(cut(64), NONE) == Lengths(64, 64, measured=True)
    assert made.lengths(cut(4 * length), NONE) == Lengths(96, 80, measured=True)
    made.take_lengths(found, Lengths(length, 80, measured=True))
    assert made.lengths(cut(4 * length), NONE) == Lengths(4 * length, 4 * length)
    other = replace(found, data=found.data.model_copy(update={"dataset": "other.jsonl"}))
    assert made.lengths(other, NONE) == Lengths(length, length)


def test_rows_are_no_longer_than_their_bytes_let_them_be() -> None:
    found = profile()
    length = found.data.cutoff_len
    assert lengths_of(found, NONE) == Lengths(length, length)
    short = DataCount((FileSize(100, 200),), known=True)
    assert lengths_of(found, short) == Lengths(264, 264)
    unknown = DataCount((FileSize(100, None),), known=True)
    assert lengths_of(found, unknown) == Lengths(length, length)
    long = DataCount((FileSize(100, 10**6),), (FileSize(10, 100),), known=True)
    assert lengths_of(found, long) == Lengths(length, 164)
    packed = replace(found, data=found.data.model_copy(update={"packing": True}))
    assert lengths_of(packed, short) == Lengths(length, length)


def test_the_demo_is_found_wherever_it_is_started(tmp_path: Path) -> None:
    found = profile()
    demo = replace(found, model=found.model.model_copy(update={"model_name_or_path": "demo"}))
    made = known(FakeDesk(), demo)
    assert made.architecture(demo) is not None
    assert made.architecture(found) is None


def test_a_search_over_what_memory_does_not_depend_on_is_no_matter_of_size() -> None:
    assert not varies(profile())
    for space, differs in (
        ({"learning_rate": [1e-4, 1e-3]}, False),
        ({"per_device_train_batch_size": [1, 2]}, False),  # The profile's own is the largest.
        ({"per_device_train_batch_size": [1, 8]}, True),
    ):
        searched = replace(profile(), search=SearchTable.model_validate({"space": space}))
        assert varies(searched) is differs
        assert known(FakeDesk()).view(searched, NONE, "").searched is differs


def test_until_a_model_is_read_the_forecast_of_the_one_before_is_an_old_one() -> None:
    made = Forecasting(FakeDesk())
    assert made.view(profile(), NONE, "").problem == "reading the model"
    made.take(made.look(profile(), 0.0))
    shown = made.view(profile(), NONE, "")
    found = profile()
    other = replace(found, model=found.model.model_copy(update={"model_name_or_path": "other"}))
    view = made.view(other, NONE, "")
    assert view.lines == shown.lines and view.stale == "reading the model"
    made.take(made.look(other, 1.0))
    assert not made.view(other, NONE, "").stale
