"""What is said of learning rates while a profile is made."""

import pytest

from core.catalogue import find
from core.profile import Profile, loads
from core.search.portfolio import known_good
from tui.rates import usual_rates
from tui.space_text import parse_space

STAGES = find("method.stage").choices
METHODS = find("method.finetuning_type").choices


def profile(stage: object, method: object) -> Profile:
    reward = 'reward_model = "r"\n' if stage == "ppo" else ""
    return loads(
        f'[model]\nmodel_name_or_path = "some/model-7B"\n[method]\nstage = "{stage}"\n'
        f'finetuning_type = "{method}"\n[alignment]\n{reward}[data]\ndataset = "d.jsonl"\n'
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", STAGES)
def test_the_range_holds_the_rates_that_a_search_begins_with(stage: object, method: object) -> None:
    rates = usual_rates({"method.stage": stage, "method.finetuning_type": method})
    ranked = [good.values["learning_rate"] for good in known_good(profile(stage, method))]
    assert ranked
    assert all(isinstance(rate, float) and rates.low <= rate <= rates.high for rate in ranked)
    assert rates.low <= rates.start <= rates.high


def test_it_is_said_in_words_and_as_a_search() -> None:
    rates = usual_rates({"method.stage": "dpo", "method.finetuning_type": "lora"})
    assert rates.words() == "5e-7 – 5e-5, start at 5e-6"
    entry = parse_space(find("learning_rate"), rates.space())
    assert (entry.low, entry.high, entry.scale) == (5e-7, 5e-5, "log")  # type: ignore[union-attr]
