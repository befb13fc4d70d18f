"""A run answers: alone, beside its base, until it is told to stop."""

import queue
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.study.after import (
    Failure,
    Heard,
    Hush,
    Open,
    Piece,
    Said,
    Sampling,
    Say,
    Turn,
    Weights,
    Who,
)
from core.train.after.chat import Talk, serve
from core.train.after.speak import Text, with_defaults
from core.train.errors import ModelError, SettingsError
from tests.core.train.after.conftest import FakeLine
from tests.core.train.conftest import Ran, make_tokenizer

Train = Callable[..., Ran]
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)


@dataclass
class Asked:
    """A loaded run, asked in this process."""

    talk: Talk
    line: FakeLine

    def say(
        self, *who: Who, text: str = "Say 3", sampling: Sampling = GREEDY, **turns: Any
    ) -> dict[Who, Said]:
        self.line.said.clear()
        talks = {w: (*turns.get("before", ()), Turn("user", text)) for w in who}
        self.talk.answer(Say(talks=talks, sampling=sampling), queue.SimpleQueue())
        return {s.who: s for s in self.line.said if isinstance(s, Said)}

    def pieces(self, who: Who) -> str:
        return "".join(p.text for p in self.line.said if isinstance(p, Piece) and p.who == who)


def _open(ran: Ran, line: FakeLine) -> Asked:
    weights = Weights(str(ran.folder / "output"), str(ran.folder))
    return Asked(Talk(Open(weights=weights), line), line)


def _generated(model: Any, folder: Path, text: str) -> str:
    """What transformers' own greedy generation answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    with torch.no_grad():
        made = model.eval().generate(
            input_ids=ids, max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=0
        )
    return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def test_answers_are_those_of_the_model_and_of_its_base(
    trained: Train, line: FakeLine, model_dir: Path
) -> None:
    ran = trained(train__max_steps=8)
    asked = _open(ran, line)
    said = asked.say("base", "tuned")
    output = ran.folder / "output"
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    assert said["base"].text == _generated(base, output, "Say 3")
    tuned = PeftModel.from_pretrained(base, str(output))
    assert said["tuned"].text == _generated(tuned, output, "Say 3")
    assert said["tuned"].text != said["base"].text
    assert asked.pieces("tuned") == said["tuned"].text
    assert asked.pieces("base") == said["base"].text
    assert asked.say("tuned")["tuned"].text == said["tuned"].text, "the adapter is on again"


def test_answers_of_a_full_training_stand_beside_those_of_its_base(
    trained: Train, line: FakeLine, model_dir: Path
) -> None:
    ran = trained(method__finetuning_type="full", train__learning_rate=0.005)
    asked = _open(ran, line)
    ready = asked.talk.ready()
    assert ready.speakers == ("tuned", "base") and "as much memory again" in ready.cost
    said = asked.say("base", "tuned")
    output = ran.folder / "output"
    assert said["base"].text == _generated(
        AutoModelForCausalLM.from_pretrained(model_dir), output, "Say 3"
    )
    assert said["tuned"].text == _generated(
        AutoModelForCausalLM.from_pretrained(output), output, "Say 3"
    )
    assert asked.talk.ready().cost == ""


def test_a_seed_makes_an_answer_repeatable_whoever_speaks_beside_it(
    trained: Train, line: FakeLine
) -> None:
    asked = _open(trained(), line)
    drawn = Sampling(max_new_tokens=12, temperature=1.0, seed=5)
    alone = asked.say("tuned", sampling=drawn)["tuned"].text
    assert asked.say("base", "tuned", sampling=drawn)["tuned"].text == alone
    others = {
        asked.say("tuned", sampling=Sampling(max_new_tokens=12, seed=n))["tuned"].text
        for n in range(4)
    }
    assert len(others) > 1


def test_drawing_from_the_likeliest_alone_is_greedy(trained: Train, line: FakeLine) -> None:
    asked = _open(trained(), line)
    best = asked.say("tuned")["tuned"].text
    for narrow in (Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4)):
        sampling = with_defaults(narrow, Sampling(max_new_tokens=12, temperature=1.0, seed=1))
        assert asked.say("tuned", sampling=sampling)["tuned"].text == best


def test_what_is_not_said_is_as_the_profile_has_it(trained: Train, line: FakeLine) -> None:
    asked = _open(trained(generation__max_new_tokens=3, generation__temperature=0.7), line)
    assert asked.talk.ready().sampling == Sampling(3, 0.7, 1.0, 0, 1.0)
    said = asked.say("tuned", sampling=Sampling())["tuned"]
    assert said.tokens <= 3 and said.end in ("length", "end")


def test_an_answer_is_ended_when_it_is_asked_for(trained: Train, line: FakeLine) -> None:
    asked = _open(trained(), line)
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    heard.put(Hush())
    asked.talk.answer(Say(talks={"tuned": (Turn("user", "Say 3"),)}), heard)
    said = next(s for s in line.said if isinstance(s, Said))
    assert said.end == "hushed" and said.tokens == 0


def test_a_conversation_that_is_too_long_is_refused_and_the_next_one_is_not(
    trained: Train, line: FakeLine
) -> None:
    asked = _open(trained(), line)
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    heard.put(Say(talks={"tuned": (Turn("user", "hello " * 400),)}))
    heard.put(Say(talks={"tuned": (Turn("user", "Say 3"),)}, sampling=GREEDY))
    heard.put(None)
    line.said.clear()
    assert serve(asked.talk, heard, line) == 0  # type: ignore[arg-type]
    failure = next(s for s in line.said if isinstance(s, Failure))
    assert "256" in failure.reason and failure.usage
    assert isinstance(line.said[-1], Heard) and any(isinstance(s, Said) for s in line.said)


def test_an_answer_has_no_more_tokens_than_the_model_has_room_for(
    trained: Train, line: FakeLine
) -> None:
    asked = _open(trained(), line)
    said = asked.say("tuned", text="hello " * 100, sampling=Sampling(5000, 0.0))["tuned"]
    assert 0 < said.tokens < 256


def test_a_template_that_refuses_a_turn_says_so(trained: Train, line: FakeLine) -> None:
    asked = _open(trained(), line)
    asked.talk._tokenizer.chat_template = "{{ raise_exception('system role not supported') }}"
    with pytest.raises(SettingsError, match="system role not supported"):
        asked.say("tuned", before=(Turn("system", "Be kind"),))


def test_a_run_on_plain_text_goes_on_with_what_is_written(
    trained: Train, line: FakeLine, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "hello hello hello hello"}\n' * 24)
    ran = trained(method__stage="pt", data__dataset=str(texts), data__cutoff_len=16)
    asked = _open(ran, line)
    assert "goes on with what you write" in asked.talk.ready().notes[0]
    assert asked.say("tuned", text="hello")["tuned"].tokens > 0


def test_a_model_that_diverged_says_that_it_did(trained: Train, line: FakeLine) -> None:
    asked = _open(trained(), line)
    for weight in asked.talk._trained.model.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="no numbers"):
        asked.say("tuned")


def test_a_reward_model_has_nothing_to_say(tmp_path: Path, line: FakeLine) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    with pytest.raises(ModelError, match="reward model"):
        Talk(Open(weights=Weights(str(tmp_path))), line)  # type: ignore[arg-type]


def test_characters_of_several_tokens_come_whole() -> None:
    tokenizer = make_tokenizer()
    words = "größer 你好 🙂 end"
    text = Text(tokenizer)
    pieces = [text.add(i) for i in tokenizer(words)["input_ids"]]
    assert "".join(pieces) + text.rest() == words == text.whole()
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    tokenizer = make_tokenizer()
    text = Text(tokenizer)
    ids = tokenizer("🙂")["input_ids"]
    assert [text.add(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert "\ufffd" in text.rest()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_may_be_held_in_fewer_bytes(method: str, trained: Train, line: FakeLine) -> None:
    ran = trained(method__finetuning_type=method, train__max_steps=1, train__learning_rate=0.001)
    weights = Weights(str(ran.folder / "output"), str(ran.folder))
    asked = Asked(Talk(Open(weights=weights, dtype="bf16"), line), line)
    assert asked.talk.ready().dtype == "bf16"
    said = asked.say("tuned", "base")
    assert said["tuned"].tokens > 0 and said["base"].tokens > 0
