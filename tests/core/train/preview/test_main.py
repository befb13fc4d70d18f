"""A profile's data as its process tells it: the demo's model and rows, and what is broken on purpose."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.profile import DEMO_MODEL, Profile, from_document
from core.study.preview import (
    Began,
    Counted,
    Failed,
    PreviewRequest,
    Shown,
    Told,
    decode_told,
    encode,
)
from core.train.data.batches import build_examples
from core.train.data.chat import make_encoder
from core.train.data.rows import read_split
from core.train.preview import main as preview

Rows = Callable[..., Path]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    def write(*rows: dict[str, Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return write


def alpaca(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Is {n} even?", "output": "yes" if n % 2 else "no"} for n in range(count)
    ]


def profile(dataset: Path | str, **tables: dict[str, Any]) -> Profile:
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": str(DEMO_MODEL)},
        "data": {"dataset": str(dataset), "val_size": 0, "cutoff_len": 128},
    }
    for table, values in tables.items():
        document.setdefault(table, {}).update(values)
    return from_document(document, source="test")


def told(
    asked: Profile, monkeypatch: pytest.MonkeyPatch | None = None, **request: Any
) -> tuple[int, list[Told]]:
    """The exit code and the messages of a look, in this process, with its torch left alone."""
    messages: list[Told] = []
    line = encode(PreviewRequest(asked.to_document(), **request))
    code = preview.answer(line, messages.append)
    return code, [decode_told(encode(message)) for message in messages]


@pytest.fixture(autouse=True)
def torch_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process need it."""
    monkeypatch.setattr(preview, "without_torch", lambda profile: None)


def of(kind: type[Any], messages: Sequence[Told]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]


def text(shown: Shown, *, learnt: bool | None = None) -> list[str]:
    return [
        "".join(p.text for p in part.pieces if learnt is None or p.learnt is learnt)
        for part in shown.parts
    ]


def test_the_first_examples_come_before_the_counts(rows: Rows) -> None:
    code, messages = told(profile(rows(*alpaca(5))), examples=2)
    assert code == 0
    kinds = [type(message) for message in messages if not isinstance(message, preview.Progress)]
    assert kinds == [Began, Shown, Shown, Counted]
    first = of(Shown, messages)[0]
    assert first.place.endswith("data.jsonl, row 1")
    assert text(first) == [
        "<|im_start|>user\nIs 0 even?<|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n"
    ]
    assert text(first, learnt=True) == ["no<|im_end|>"]


@pytest.mark.parametrize("cutoff", [16, 24, 128])
def test_what_is_counted_is_what_training_makes(rows: Rows, cutoff: int) -> None:
    data = [{"instruction": "a word " * n, "output": "b " * n} for n in range(1, 20)]
    asked = profile(rows(*data), data={"cutoff_len": cutoff})
    counted = of(Counted, told(asked)[1])[0]

    from core.train.model.build import load_tokenizer
    from core.train.model.source import Source

    tokenizer = load_tokenizer(asked, Source(str(DEMO_MODEL), (str(DEMO_MODEL),)))
    split = read_split(asked.data, "sft", [str(asked.data.dataset)], [], 0)
    made = build_examples(split, make_encoder(tokenizer, asked), asked.data, "sft", lambda: None)
    trained = [made.train[i] for i in range(len(made.train))]
    assert counted.left_out == made.dropped
    assert counted.tokens == sum(e.size for e in trained)
    assert counted.learnt == sum(e.learnt for e in trained)
    assert sum(counted.lengths.values()) == len(data)
    assert counted.cut == sum(n for size, n in counted.lengths.items() if size > cutoff)


@pytest.mark.parametrize("stage", ["sft", "pt"])
def test_packed_sequences_are_counted_as_training_packs_them(rows: Rows, stage: str) -> None:
    data = alpaca(40) if stage == "sft" else [{"text": "A word. " * n} for n in range(1, 30)]
    asked = profile(rows(*data), method={"stage": stage}, data={"packing": True, "cutoff_len": 64})
    code, messages = told(asked)
    counted, shown = of(Counted, messages)[0], of(Shown, messages)

    tokenizer = preview.find_tokenizer(asked, lambda message: None)
    split = read_split(asked.data, stage, [str(asked.data.dataset)], [], 0)
    made = build_examples(split, make_encoder(tokenizer, asked), asked.data, stage, lambda: None)
    assert code == 0 and counted.sequences == len(made.train)
    assert [sum(len(p.ids) for part in shown[0].parts for p in part.pieces)] == [made.train[0].size]
    first: Any = made.train[0]
    assert len(shown[0].parts) == len(first.starts)
    assert shown[0].parts[0].place.endswith(", row 1")


def test_a_sequence_of_one_row_says_which_row_it_is(rows: Rows) -> None:
    asked = profile(rows(*alpaca(3)), data={"packing": True, "cutoff_len": 24})
    _, messages = told(asked)
    (part,) = of(Shown, messages)[0].parts
    assert part.title == "row 1 of 1" and part.place.endswith(", row 1")


def test_pairs_tags_and_prompts_have_parts(rows: Rows) -> None:
    pairs = rows({"instruction": "q", "chosen": "good", "rejected": "bad"}, name="p.jsonl")
    shown = of(Shown, told(profile(pairs, method={"stage": "dpo"}))[1])[0]
    assert [part.title for part in shown.parts] == ["prompt", "chosen", "rejected"]
    assert text(shown, learnt=True) == ["", "good<|im_end|>", "bad<|im_end|>"]

    tags = rows({"instruction": "q", "output": "meh", "kto_tag": False}, name="t.jsonl")
    shown = of(Shown, told(profile(tags, method={"stage": "kto"}))[1])[0]
    assert [part.title for part in shown.parts] == ["prompt", "answer, bad"]
    assert text(shown, learnt=True) == ["", "meh<|im_end|>"]

    asked = profile(pairs, method={"stage": "ppo"}, alignment={"reward_model": "somebody/scores"})
    shown = of(Shown, told(asked)[1])[0]
    assert text(shown) == ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"]
    assert shown.learnt == 0


def test_a_row_is_shown_by_its_number_and_nothing_is_counted(rows: Rows) -> None:
    data = rows(*alpaca(9))
    code, messages = told(profile(data), row=7, examine=False)
    assert code == 0 and [m.place[-5:] for m in of(Shown, messages)] == ["row 7"]
    assert of(Counted, messages) == []
    held_back = profile(data, data={"val_size": 3})
    places = [
        of(Shown, told(held_back, row=n, examine=False)[1])[0].evaluation for n in range(1, 10)
    ]
    assert sum(places) == 3


def test_a_row_that_is_not_there(rows: Rows) -> None:
    code, messages = told(profile(rows(*alpaca(3))), row=4, examine=False)
    assert code == 1 and "no data file has a row 4" in of(Failed, messages)[0].reason


def test_a_broken_row_is_named_with_field_and_fix(rows: Rows) -> None:
    code, messages = told(profile(rows(*alpaca(2), {"instruction": "x", "answer": "y"})))
    failed = of(Failed, messages)[0]
    assert code == 1 and failed.usage
    assert "row 3: output is missing" in failed.reason


def test_nothing_to_learn_is_an_error(rows: Rows) -> None:
    code, messages = told(profile(rows(*alpaca(3)), data={"cutoff_len": 8}))
    counted = of(Counted, messages)[0]
    assert code == 1 and counted.left_out == 3
    assert [f.severity for f in counted.findings] == ["error"]
    assert all(not shown.used for shown in of(Shown, messages))


def test_a_row_that_a_finding_is_about_is_shown_too(rows: Rows) -> None:
    data = rows(*alpaca(4), {"instruction": "x", "output": ""})
    messages = told(profile(data), examples=1)[1]
    shown = of(Shown, messages)[1]
    assert shown.why == "empty answer" and shown.place.endswith("row 5")


def test_a_sample_is_of_the_first_rows(rows: Rows) -> None:
    data = rows(*alpaca(9), {"instruction": "x", "output": ""})
    counted = of(Counted, told(profile(data), most=9)[1])[0]
    assert (counted.looked, counted.of, counted.findings) == (9, 10, ())
    assert of(Counted, told(profile(data), most=None)[1])[0].looked == 10


def test_a_stream_is_looked_at_as_far_as_training_reads_it(rows: Rows) -> None:
    data = rows(*alpaca(20))
    asked = profile(
        data,
        data={"streaming": True, "buffer_size": 4},
        train={"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    )
    code, messages = told(asked, most=5)
    assert code == 0
    assert of(Began, messages)[0].rows == 12
    assert of(Counted, messages)[0].looked == 5


def test_another_template_than_the_tokenizers_own(rows: Rows) -> None:
    asked = profile(rows(*alpaca(3)), model={"template": "alpaca"})
    counted = of(Counted, told(asked)[1])[0]
    assert [f.kind for f in counted.findings] == ["template forced"]
    same = profile(rows(*alpaca(3)), model={"template": "chatml"})
    assert of(Counted, told(same)[1])[0].findings == (), "it writes what the tokenizer's own writes"


def test_a_template_of_other_models_is_refused(rows: Rows) -> None:
    code, messages = told(profile(rows(*alpaca(3)), model={"template": "llama3"}))
    assert code == 1 and "<|eot_id|>" in of(Failed, messages)[0].reason


def test_a_tokenizer_without_a_template_is_said_to_have_none(rows: Rows, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((DEMO_MODEL / name).read_bytes())
    asked = profile(rows(*alpaca(3)), model={"model_name_or_path": str(bare)})
    messages = told(asked)[1]
    assert of(Began, messages)[0].template == "chatml (the tokenizer has none)"
    assert [f.kind for f in of(Counted, messages)[0].findings] == ["no template"]


def test_texts_that_are_chats_look_like_another_stage(rows: Rows) -> None:
    chats = [{"text": f"<|im_start|>user\n{n}<|im_end|>"} for n in range(3)]
    counted = of(Counted, told(profile(rows(*chats), method={"stage": "pt"}))[1])[0]
    assert [f.kind for f in counted.findings] == ["other stage"]


def test_an_end_that_generation_config_does_not_know(rows: Rows, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in DEMO_MODEL.iterdir():
        if file.suffix != ".safetensors":
            (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["eos_token"] = "<|endoftext|>"
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "generation_config.json").unlink(missing_ok=True)
    asked = profile(rows(*alpaca(3)), model={"model_name_or_path": str(model)})
    counted = of(Counted, told(asked)[1])[0]
    assert [f.kind for f in counted.findings] == ["other end token"]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert of(Counted, told(asked)[1])[0].findings == ()


def test_a_model_that_is_not_here_and_no_hub(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = profile(rows(*alpaca(3)), model={"model_name_or_path": "nobody/nothing-here"})
    code, messages = told(asked)
    reason = of(Failed, messages)[0].reason
    assert code == 1 and "nobody/nothing-here is not on this machine" in reason


def test_what_is_no_request_is_refused() -> None:
    messages: list[Told] = []
    assert preview.answer(b"{}\n", messages.append) == 1
    assert isinstance(messages[0], Failed) and not messages[0].usage


def test_torch_is_hidden_from_tokenizers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    hidden: dict[str, Any] = {}
    monkeypatch.setattr(sys, "modules", hidden)
    preview.without_torch(profile("demo", model={"trust_remote_code": True}))
    assert hidden == {}
    preview.without_torch(profile("demo"))
    assert hidden == {"torch": None}


def test_wrong_use_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert preview.main(["x"]) == 2
    assert "usage" in capsys.readouterr().err
