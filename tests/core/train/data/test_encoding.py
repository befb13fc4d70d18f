"""Rows of every stage become tokens: prompts and answers as one text, cut at the answer's end, with its end learnt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.rows import Compared, Conversation, Judged, Question, Text, Turn
from core.train.data.chat import ChatEncoder
from core.train.data.examples import IGNORED, Example, Pair, Prompt, Tagged
from core.train.errors import DataError

ASK = (Turn("system", "Be brief."), Turn("user", "What is the sky?"))
PAIR = Compared(ASK, "Blue, friend!", "Eight legs.", "f, row 1")


@pytest.fixture
def tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


def encoder(tokenizer: Any, cutoff: int = 256, template: str = "auto", **more: Any) -> ChatEncoder:
    return ChatEncoder(tokenizer, template, cutoff, more.pop("train_on_prompt", False), **more)


def pair_of(tokenizer: Any, row: Compared, **more: Any) -> Pair:
    (made,) = encoder(tokenizer, **more).encode([row])
    assert isinstance(made, Pair)
    return made


@pytest.mark.parametrize("template", ["auto", "llama2", "alpaca", "deepseek", "vicuna"])
def test_both_answers_of_a_pair_come_after_the_same_prompt(tokenizer: Any, template: str) -> None:
    made = pair_of(tokenizer, PAIR, template=template)
    prompt, chosen, rejected = (
        tokenizer.decode(ids) for ids in (made.prompt, made.chosen, made.rejected)
    )
    end = "<|im_end|>" if template == "auto" else "</s>"
    assert chosen.replace(" ", "") == f"Blue,friend!{end}"
    assert rejected.replace(" ", "") == f"Eightlegs.{end}"
    assert "What is the sky?" in prompt and "Blue" not in prompt
    for answer, words in ((made.chosen, "Blue, friend!"), (made.rejected, "Eight legs.")):
        whole = Conversation((*ASK, Turn("assistant", words)), "")
        example: Any = encoder(tokenizer, template=template).encode([whole])[0]
        size = len(made.prompt) + len(answer)
        assert example.ids[:size].tolist() == [*made.prompt.tolist(), *answer.tolist()]


def test_a_token_over_the_border_belongs_to_the_answers(tokenizer: Any) -> None:
    """With a template that ends the prompt in a space, the space and the answer's first word are one token."""
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}A: {{ m.content }}</s>{% else %}Q: {{ m.content }} "
        "{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
    )
    row = Compared((Turn("user", "fruit"),), "is a fruit", "hello there", "f, row 1")
    made = pair_of(tokenizer, row)
    assert tokenizer.decode([*made.prompt, *made.chosen]) == "Q: fruit A: is a fruit</s>"
    assert tokenizer.decode([*made.prompt, *made.rejected]) == "Q: fruit A: hello there</s>"


def test_a_pair_loses_the_ends_of_its_answers_and_never_its_prompt(tokenizer: Any) -> None:
    whole = pair_of(tokenizer, PAIR)
    size = len(whole.prompt) + 3
    cut = pair_of(tokenizer, PAIR, cutoff=size)
    assert cut.prompt.tolist() == whole.prompt.tolist() and cut.size == size
    assert cut.chosen.tolist() == whole.chosen[:3].tolist()
    assert cut.rejected.tolist() == whole.rejected[:3].tolist()
    none = pair_of(tokenizer, PAIR, cutoff=len(whole.prompt))
    assert none.learnt == 0 and whole.learnt == len(whole.chosen) + len(whole.rejected)


def test_answers_that_are_the_same_within_the_cut_off_teach_nothing(tokenizer: Any) -> None:
    row = Compared(ASK, "hello hello hello there", "hello hello hello friend", "f, row 1")
    whole = pair_of(tokenizer, row)
    assert whole.learnt
    assert pair_of(tokenizer, row, cutoff=len(whole.prompt) + 2).learnt == 0


def test_a_tagged_answer_keeps_its_tag(tokenizer: Any) -> None:
    rows = [Judged(ASK, "Blue.", True, "f, row 1"), Judged(ASK, "Eight.", False, "f, row 2")]
    good, bad = encoder(tokenizer).encode(rows)
    assert isinstance(good, Tagged) and isinstance(bad, Tagged) and good.good and not bad.good
    assert tokenizer.decode(good.answer) == "Blue.<|im_end|>"
    assert good.prompt.tolist() == bad.prompt.tolist()
    (cut,) = encoder(tokenizer, cutoff=len(good.prompt)).encode(rows[:1])
    assert cut.learnt == 0


def test_a_prompt_ends_where_its_answer_begins(tokenizer: Any) -> None:
    row = Question(ASK, "f, row 1")
    (made,) = encoder(tokenizer).encode([row])
    assert isinstance(made, Prompt) and made.learnt == 1
    assert tokenizer.decode(made.ids).endswith("<|im_start|>assistant\n")
    assert made.ids.tolist() == pair_of(tokenizer, PAIR).prompt.tolist()
    (long,) = encoder(tokenizer, cutoff=made.size - 1).encode([row])
    assert long.learnt == 0 and long.size == 0


def test_a_text_is_learnt_whole_with_its_end(tokenizer: Any) -> None:
    (made,) = encoder(tokenizer, cutoff=4).encode([Text("Hello there, friend!", "f, row 1")])
    assert isinstance(made, Example)
    assert tokenizer.decode(made.ids) == "Hello there, friend!</s>"
    assert (made.labels[1:] == made.ids[1:]).all() and made.labels[0] == IGNORED
    ended, same = encoder(tokenizer).encode([Text("1</s>", "f, row 1"), Text("1", "f, row 2")])
    assert ended.size == same.size


def test_a_text_begins_with_the_token_that_the_tokenizer_begins_texts_with(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    (made,) = encoder(tokenizer).encode([Text("Hello", "f, row 1")])
    assert isinstance(made, Example)
    assert tokenizer.decode(made.ids) == "<s>Hello</s>"


def test_with_masked_history_the_last_answer_alone_is_learnt(tokenizer: Any) -> None:
    turns = (
        Turn("user", "Say hello."), Turn("assistant", "Hello."), Turn("user", "again"), Turn("assistant", "Eight."),
    )  # fmt: skip
    row = Conversation(turns, "f, row 1")
    (last,) = encoder(tokenizer, mask_history=True).encode([row])
    (every,) = encoder(tokenizer).encode([row])
    assert isinstance(last, Example) and isinstance(every, Example)
    assert tokenizer.decode(last.ids[last.labels != IGNORED]) == "Eight.<|im_end|>"
    assert (
        tokenizer.decode(every.ids[every.labels != IGNORED]) == "Hello.<|im_end|>Eight.<|im_end|>"
    )
    assert np.array_equal(last.ids, every.ids)


def test_an_empty_answer_is_its_end_alone(tokenizer: Any) -> None:
    made = pair_of(tokenizer, Compared(ASK, "", "Eight.", "f, row 1"))
    assert tokenizer.decode(made.chosen) == "<|im_end|>" and made.learnt


def test_tools_reach_the_template_or_else_the_system_text(tokenizer: Any) -> None:
    tools = '[{"name": "weather"}]'
    row = Conversation((Turn("user", "1"), Turn("assistant", "2")), "f, row 1", tools)
    bare = Conversation(row.turns, "f, row 2")

    def texts() -> list[str]:
        made: list[Any] = encoder(tokenizer).encode([row, bare])
        return [tokenizer.decode(example.ids) for example in made]

    told, plain = texts()
    assert told.startswith(f"<|im_start|>system\nYou may call these functions:\n{tools}<|im_end|>")
    assert "weather" not in plain
    tokenizer.chat_template = (
        "{% if tools %}[{{ tools[0].name }}]{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    told, plain = texts()
    assert told.startswith("[weather]<|im_start|>user") and plain.startswith("<|im_start|>user")


def test_a_prompt_that_the_template_refuses_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    for row in (PAIR, Question(ASK, "f, row 1")):
        with pytest.raises(DataError, match=r"f, row 1: the chat template refuses"):
            encoder(tokenizer).encode([row])
