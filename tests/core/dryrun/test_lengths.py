"""The longest rows, as the worker's own code makes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.dryrun import lengths as module
from core.dryrun.errors import CannotProve
from core.dryrun.lengths import measure
from core.memory.forecast import Lengths
from core.profile import DEMO_MODEL, Profile, dataset_files, eval_files, loads
from core.train.data.batches import Examples, build_examples, read_split
from core.train.data.chat import ChatEncoder, make_encoder
from core.train.model.build import load_tokenizer
from core.train.model.source import Source


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """A profile over rows whose answers have the given numbers of words."""

    def make(words: list[int], **settings: Any) -> Profile:
        file = tmp_path / "rows.jsonl"
        rows = [{"instruction": "Say it.", "output": "hello " * n + str(n)} for n in words]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = f'[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "{file}"\nval_size = 0\n'
        return loads(text).with_changes({k.replace("__", "."): v for k, v in settings.items()})

    return make


def worker_examples(profile: Profile) -> Examples:
    table = profile.data
    split = read_split(
        table, "sft", dataset_files(profile), eval_files(profile), profile.train.data_seed
    )
    tokenizer = load_tokenizer(profile, Source(str(DEMO_MODEL), (str(DEMO_MODEL),)))
    encoder = ChatEncoder(tokenizer, "auto", table.cutoff_len, table.train_on_prompt)
    return build_examples(split, encoder, table, "sft", lambda: None)


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """A profile over answers that somebody has judged, each of so many words: of pairs, both answers'."""

    def judged(stage: str, rows: list[tuple[int, int]]) -> Profile:
        def row(number: int, one: int, other: int) -> dict[str, Any]:
            first = {"instruction": "Say it."}
            if stage == "kto":
                asked = "Say it." + " Now." * other
                return {"instruction": asked, "output": "hello " * one, "kto_tag": number % 2 == 0}
            return first | {"chosen": "hello " * one, "rejected": "bye " * other}

        file = tmp_path / "judged.jsonl"
        made = (row(n, *both) for n, both in enumerate(rows))
        file.write_text("".join(json.dumps(each) + "\n" for each in made))
        text = f'[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "{file}"\nval_size = 0\n'
        return loads(text).with_changes({"method.stage": stage, "data.cutoff_len": 512})

    return judged


def judged_examples(profile: Profile) -> list[Any]:
    split = read_split(
        profile.data,
        profile.method.stage,
        dataset_files(profile),
        eval_files(profile),
        profile.train.data_seed,
    )
    tokenizer = load_tokenizer(profile, Source(str(DEMO_MODEL), (str(DEMO_MODEL),)))
    return list(make_encoder(tokenizer, profile).encode(split.train))


@pytest.mark.parametrize("stage", ["rm", "dpo", "kto"])
def test_a_row_is_as_long_as_its_prompt_and_the_longer_answer(judged: Any, stage: str) -> None:
    profile = judged(stage, [(3, 20), (30, 4), (9, 9)])
    examples, found = judged_examples(profile), measure(profile)
    assert found.train == -(-max(e.size for e in examples) // 8) * 8
    assert found.learnt == max(e.learnt for e in examples)
    assert found.padded


def test_pairs_of_one_length_need_padding_where_their_answers_differ(judged: Any) -> None:
    cut = {"data.cutoff_len": 64}
    even = measure(judged("dpo", [(200, 200)] * 3).with_changes(cut))
    uneven = measure(judged("dpo", [(200, 200), (200, 4)]).with_changes(cut))
    assert (even.train, even.padded) == (64, False)
    assert (uneven.train, uneven.padded) == (64, True)


def test_prompts_of_several_lengths_need_padding_beside_others_answers(judged: Any) -> None:
    found = {n: measure(judged("kto", [(n, 4)])) for n in range(1, 40)}
    exact = next(n for n, each in found.items() if not each.padded)
    assert not measure(judged("kto", [(exact, 4), (exact, 4)])).padded
    assert measure(judged("kto", [(exact, 4), (exact + 1, 3)])).padded


def test_the_longest_answer_is_found_in_a_row_that_is_not_among_the_longest(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALL", 8)
    profile = judged("kto", [(2, 80)] * 40 + [(40, 0)] + [(1, 0)] * 10)
    assert measure(profile).learnt == max(e.learnt for e in judged_examples(profile))


def padded(examples: list[Any]) -> int:
    return -(-max(len(e.ids) for e in examples) // 8) * 8


@pytest.mark.parametrize(
    "settings",
    [{}, {"data__cutoff_len": 40}, {"data__val_size": 0.3}, {"data__packing": True, "data__cutoff_len": 100}],
)  # fmt: skip
def test_they_are_the_workers(make: Any, settings: dict[str, Any]) -> None:
    profile = make([n % 37 for n in range(60)], **settings)
    examples = worker_examples(profile)
    found = measure(profile)
    assert found.measured and found.padded
    assert found.train == padded(examples.train)
    assert found.evaluation == (padded(examples.evaluation) if len(examples.evaluation) else 0)


def test_a_short_row_of_many_tokens_is_found_among_many(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = make([60] * 99)
    file = Path(dataset_files(profile)[0])
    signs = json.dumps({"instruction": "Say it.", "output": "{[7]}=" * 50})
    file.write_text(f"{file.read_text()}{signs}\n")
    exact = measure(profile)
    monkeypatch.setattr(module, "ALL", 20)
    assert measure(profile).train == exact.train > padded(worker_examples(make([60])).train)


def test_of_many_rows_those_that_look_the_longest_are_enough(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = make([n % 53 for n in range(300)])
    exact = measure(profile)
    monkeypatch.setattr(module, "ALL", 20)
    assert measure(profile) == exact


def test_rows_without_an_answer_within_the_cut_off_are_passed_over(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = make([2] * 30)
    file = tmp_path / "rows.jsonl"
    long = json.dumps({"instruction": "please " * 400, "output": "yes"}) + "\n"
    file.write_text(file.read_text() + long * 25)
    cut = profile.with_changes({"data.cutoff_len": 64})
    monkeypatch.setattr(module, "ALL", 20)
    assert measure(cut).train == padded(worker_examples(cut).train) < 64


def test_rows_of_one_length_need_no_padding(make: Any) -> None:
    even = measure(make([200] * 9, data__cutoff_len=64))
    assert (even.train, even.padded) == (64, False)
    assert measure(make([200] * 9, data__cutoff_len=60)).padded


def test_packed_rows_that_do_not_see_each_other_need_a_mask_without_padding(make: Any) -> None:
    packed = {"data__cutoff_len": 64, "data__packing": True}
    assert measure(make([200] * 9, **packed)).padded
    assert not measure(make([200] * 9, data__neat_packing=False, **packed)).padded


def test_what_cannot_be_read_is_told(make: Any, tmp_path: Path) -> None:
    profile = make([3])
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(CannotProve, match="there is no such file"):
        measure(profile)
    with pytest.raises(CannotProve, match="within the first 8 tokens"):
        measure(make([3], data__cutoff_len=8))


@pytest.mark.parametrize(
    ("stage", "name"),
    [("pt", "demo-text"), ("dpo", "demo-pairs"), ("kto", "demo-tags"), ("ppo", "demo")],
)
def test_every_stage_has_its_own_rows(
    make: Any, stage: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"alignment__reward_model": "scores"} if stage == "ppo" else {}
    profile = make([1], method__stage=stage, data__dataset=name, data__cutoff_len=64, **more)
    tokenizer = load_tokenizer(profile, Source(str(DEMO_MODEL), (str(DEMO_MODEL),)))
    split = read_split(profile.data, stage, [name], [], 0)
    examples = build_examples(
        split, ChatEncoder.of(tokenizer, "auto", profile.data), profile.data, stage, lambda: None
    )
    exact = measure(profile)
    assert exact.measured and exact.train == -(-examples.longest // 8) * 8
    monkeypatch.setattr(module, "ALL", 100)
    assert measure(profile).train == exact.train


def test_a_stream_is_not_read_for_it(make: Any) -> None:
    profile = make([1], data__streaming=True, train__max_steps=10, data__cutoff_len=48)
    Path(dataset_files(profile)[0]).unlink()
    assert measure(profile) == Lengths.bound(profile)
