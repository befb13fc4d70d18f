"""Named templates write the published formats, letter by letter; one that is another family's is refused.

Each format is written out as its source has it: the model card or the template in the model's tokenizer_config.json
where one is named (many are gathered in huggingface.js, packages/jinja/test/e2e.test.js, and in llama.cpp,
tests/test-chat-template.cpp), else LLaMA-Factory's src/llamafactory/data/template.py at ff6d4d1.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from core.params import ModelTable
from core.rows import Conversation, Turn
from core.train.data.chat import ChatEncoder
from core.train.data.templates import TEMPLATES, TOKENS
from core.train.data.templates.fit import check_fit, fitting_templates, note
from core.train.errors import SettingsError

SYSTEM = {"role": "system", "content": "S"}
CHAT = [
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2"},
]


@dataclass(frozen=True)
class Reference:
    """A conversation of two questions as its family has it: without a system text, with one, and the first question up
    to where the answer begins."""

    whole: str
    with_system: str
    prompt: str
    bos: str = "<s>"
    eos: str = "</s>"


def chatml(bos: str = "", default: str = "") -> Reference:
    """OpenAI's ChatML as Qwen's, Yi's, InternLM2's and SmolLM2's model cards have it."""
    head = f"<|im_start|>system\n{default}<|im_end|>\n" if default else ""
    turns = (
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n"
    )
    return Reference(
        bos + head + turns,
        f"{bos}<|im_start|>system\nS<|im_end|>\n{turns}",
        f"{bos}{head}<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n",
    )


# google/gemma-1.1-7b-it and google/gemma-3-4b-it (system text before the first question), model cards.
GEMMA = Reference(
    "<bos><start_of_turn>user\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
    "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\nA2<end_of_turn>\n",
    "<bos><start_of_turn>user\nS\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
    "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\nA2<end_of_turn>\n",
    "<bos><start_of_turn>user\nQ1<end_of_turn>\n<start_of_turn>model\n",
    bos="<bos>",
    eos="<eos>",
)
# microsoft/Phi-3-mini-4k-instruct, model card.
PHI3 = Reference(
    "<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nQ2<|end|>\n<|assistant|>\nA2<|end|>\n",
    "<|system|>\nS<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n"
    "<|user|>\nQ2<|end|>\n<|assistant|>\nA2<|end|>\n",
    "<|user|>\nQ1<|end|>\n<|assistant|>\n",
)
LLAMA3_TURNS = (
    "<|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA2<|eot_id|>"
)
LLAMA4_TURNS = (
    "<|header_start|>user<|header_end|>\n\nQ1<|eot|><|header_start|>assistant<|header_end|>\n\nA1<|eot|>"
    "<|header_start|>user<|header_end|>\n\nQ2<|eot|><|header_start|>assistant<|header_end|>\n\nA2<|eot|>"
)
ALPACA_HEAD = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
)
ALPACA_TURNS = "### Instruction:\nQ1\n\n### Response:\nA1</s>\n\n### Instruction:\nQ2\n\n### Response:\nA2</s>\n\n"
VICUNA_HEAD = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
GLM4_TURNS = "<|user|>\nQ1<|assistant|>\nA1<|user|>\nQ2<|assistant|>\nA2"
GRANITE_TURNS = (
    "<|start_of_role|>user<|end_of_role|>Q1<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>A1<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>Q2<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>A2<|end_of_text|>\n"
)
COHERE_TURNS = (
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q1<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A1<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q2<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A2<|END_OF_TURN_TOKEN|>"
)
END = "<｜end▁of▁sentence｜>"
BEGIN = "<｜begin▁of▁sentence｜>"

REFERENCES: dict[str, Reference] = {
    "chatml": chatml(),
    "yi": chatml(),
    "qwen3_nothink": chatml(),
    "intern2": chatml(bos="<s>"),
    # Qwen/Qwen2.5-7B-Instruct, tokenizer_config.json.
    "qwen": chatml(default="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    # HuggingFaceTB/SmolLM2-135M-Instruct, tokenizer_config.json: without the full stop that LLaMA-Factory ends it with.
    "smollm2": chatml(
        default="You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    ),
    # Qwen/Qwen3-8B, tokenizer_config.json: only the last answer carries a thought.
    "qwen3": Reference(
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nA2<|im_end|>\n",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nA2<|im_end|>\n",
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n",
    ),
    "default": Reference(
        "<s>Human: Q1</s>\nAssistant:A1</s>\nHuman: Q2</s>\nAssistant:A2</s>\n",
        "<s>System: S</s>\nHuman: Q1</s>\nAssistant:A1</s>\nHuman: Q2</s>\nAssistant:A2</s>\n",
        "<s>Human: Q1</s>\nAssistant:",
    ),
    # Ours, for models that know no roles.
    "plain": Reference("<s>Q1\nA1</s>\nQ2\nA2</s>\n", "<s>S\nQ1\nA1</s>\nQ2\nA2</s>\n", "<s>Q1\n"),
    "alpaca": Reference(
        f"<s>{ALPACA_HEAD}{ALPACA_TURNS}",
        f"<s>S\n\n{ALPACA_TURNS}",
        f"<s>{ALPACA_HEAD}### Instruction:\nQ1\n\n### Response:\n",
    ),
    # lm-sys/FastChat, fastchat/conversation.py at daa2b9a, lines 246 to 259 (weights v1.1 and v1.3): SeparatorStyle
    # ADD_COLON_TWO with " " after a question and "</s>" after an answer. Its documentation breaks lines to be read.
    "vicuna": Reference(
        f"<s>{VICUNA_HEAD}USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT: A2</s>",
        "<s>S USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT: A2</s>",
        f"<s>{VICUNA_HEAD}USER: Q1 ASSISTANT:",
    ),
    # meta-llama/llama, llama/generation.py at c769dfd, chat_completion: f"{B_INST} {question} {E_INST} {answer} "
    # between the tokens that begin and end a sequence. LLaMA-Factory leaves out the spaces around answers.
    "llama2": Reference(
        "<s>[INST] Q1 [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s>",
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s>",
        "<s>[INST] Q1 [/INST]",
    ),
    # meta-llama/Meta-Llama-3-8B-Instruct, model card of the family.
    "llama3": Reference(
        f"<|begin_of_text|>{LLAMA3_TURNS}",
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>{LLAMA3_TURNS}",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
    ),
    "llama4": Reference(
        f"<|begin_of_text|>{LLAMA4_TURNS}",
        f"<|begin_of_text|><|header_start|>system<|header_end|>\n\nS<|eot|>{LLAMA4_TURNS}",
        "<|begin_of_text|><|header_start|>user<|header_end|>\n\nQ1<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        bos="<|begin_of_text|>",
        eos="<|eot|>",
    ),
    # mistralai/Mistral-7B-Instruct-v0.3, tokenizer_config.json. System text before the first question, as LLaMA-Factory
    # has it: the template puts it before the last one, which would change what earlier turns were trained with.
    "mistral": Reference(
        "<s>[INST] Q1[/INST] A1</s>[INST] Q2[/INST] A2</s>",
        "<s>[INST] S\n\nQ1[/INST] A1</s>[INST] Q2[/INST] A2</s>",
        "<s>[INST] Q1[/INST]",
    ),
    "ministral": Reference(
        "<s>[INST]Q1[/INST]A1</s>[INST]Q2[/INST]A2</s>",
        "<s>[INST]S\n\nQ1[/INST]A1</s>[INST]Q2[/INST]A2</s>",
        "<s>[INST]Q1[/INST]",
    ),
    # mistralai/Mistral-Small-24B-Instruct-2501, model card (V7-Tekken).
    "mistral_small": Reference(
        "<s>[INST]Q1[/INST]A1</s>[INST]Q2[/INST]A2</s>",
        "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]Q1[/INST]A1</s>[INST]Q2[/INST]A2</s>",
        "<s>[INST]Q1[/INST]",
    ),
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "phi": PHI3,
    "phi3": PHI3,
    # microsoft/phi-4, model card.
    "phi4": Reference(
        "<|im_start|>user<|im_sep|>Q1<|im_end|><|im_start|>assistant<|im_sep|>A1<|im_end|>"
        "<|im_start|>user<|im_sep|>Q2<|im_end|><|im_start|>assistant<|im_sep|>A2<|im_end|>",
        "<|im_start|>system<|im_sep|>S<|im_end|>"
        "<|im_start|>user<|im_sep|>Q1<|im_end|><|im_start|>assistant<|im_sep|>A1<|im_end|>"
        "<|im_start|>user<|im_sep|>Q2<|im_end|><|im_start|>assistant<|im_sep|>A2<|im_end|>",
        "<|im_start|>user<|im_sep|>Q1<|im_end|><|im_start|>assistant<|im_sep|>",
    ),
    # microsoft/Phi-4-mini-instruct, model card.
    "phi4_mini": Reference(
        "<|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>A2<|end|>",
        "<|system|>S<|end|><|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>A2<|end|>",
        "<|user|>Q1<|end|><|assistant|>",
    ),
    # deepseek-ai/deepseek-llm-7b-chat, tokenizer_config.json: 'Assistant: ' + answer, and a prompt that ends in
    # 'Assistant:'. LLaMA-Factory leaves out the space.
    "deepseek": Reference(
        f"{BEGIN}User: Q1\n\nAssistant: A1{END}User: Q2\n\nAssistant: A2{END}",
        f"{BEGIN}S\n\nUser: Q1\n\nAssistant: A1{END}User: Q2\n\nAssistant: A2{END}",
        f"{BEGIN}User: Q1\n\nAssistant:",
        bos=BEGIN,
        eos=END,
    ),
    # deepseek-ai/DeepSeek-V3, tokenizer_config.json.
    "deepseek3": Reference(
        f"{BEGIN}<｜User｜>Q1<｜Assistant｜>A1{END}<｜User｜>Q2<｜Assistant｜>A2{END}",
        f"{BEGIN}S<｜User｜>Q1<｜Assistant｜>A1{END}<｜User｜>Q2<｜Assistant｜>A2{END}",
        f"{BEGIN}<｜User｜>Q1<｜Assistant｜>",
        bos=BEGIN,
        eos=END,
    ),
    # THUDM/glm-4-9b-chat, tokenizer_config.json. An answer begins with a line feed, which is given with the prompt.
    "glm4": Reference(
        f"[gMASK]<sop>{GLM4_TURNS}",
        f"[gMASK]<sop><|system|>\nS{GLM4_TURNS}",
        "[gMASK]<sop><|user|>\nQ1<|assistant|>\n",
    ),
    # HuggingFaceH4/zephyr-7b-beta, tokenizer_config.json: a line feed after each turn, and no system text of its own.
    "zephyr": Reference(
        "<|user|>\nQ1</s>\n<|assistant|>\nA1</s>\n<|user|>\nQ2</s>\n<|assistant|>\nA2</s>\n",
        "<|system|>\nS</s>\n<|user|>\nQ1</s>\n<|assistant|>\nA1</s>\n<|user|>\nQ2</s>\n<|assistant|>\nA2</s>\n",
        "<|user|>\nQ1</s>\n<|assistant|>\n",
    ),
    # tiiuae/falcon-180B-chat: format_prompt of its demo, in huggingface/blog's falcon-180b.md.
    "falcon": Reference(
        "User: Q1\nFalcon: A1\nUser: Q2\nFalcon: A2\n",
        "System: S\nUser: Q1\nFalcon: A1\nUser: Q2\nFalcon: A2\n",
        "User: Q1\nFalcon:",
    ),
    # openchat/openchat-3.5-0106, tokenizer_config.json; the system text as its authors have it (imoneoi/openchat, and
    # llama.cpp after discussion 5 of openchat_3.5), where the template would write "GPT4 Correct System: ".
    "openchat": Reference(
        "<s>GPT4 Correct User: Q1<|end_of_turn|>GPT4 Correct Assistant: A1<|end_of_turn|>"
        "GPT4 Correct User: Q2<|end_of_turn|>GPT4 Correct Assistant: A2<|end_of_turn|>",
        "<s>S<|end_of_turn|>GPT4 Correct User: Q1<|end_of_turn|>GPT4 Correct Assistant: A1<|end_of_turn|>"
        "GPT4 Correct User: Q2<|end_of_turn|>GPT4 Correct Assistant: A2<|end_of_turn|>",
        "<s>GPT4 Correct User: Q1<|end_of_turn|>GPT4 Correct Assistant:",
    ),
    "granite3": Reference(
        GRANITE_TURNS,
        f"<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n{GRANITE_TURNS}",
        "<|start_of_role|>user<|end_of_role|>Q1<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    ),
    # CohereForAI/c4ai-command-r-v01, model card.
    "cohere": Reference(
        f"<BOS_TOKEN>{COHERE_TURNS}",
        f"<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>{COHERE_TURNS}",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q1<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
    ),
}  # fmt: skip


def tokenizer_with(
    *tokens: str, bos: str = "<s>", eos: str = "</s>", template: str | None = None
) -> Any:
    """A tokenizer that has `tokens` as single ones."""
    special = [bos, eos, *tokens]
    words = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=eos, chat_template=template
    )
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def test_there_is_a_reference_for_every_template_of_the_catalogue() -> None:
    named = ModelTable.model_json_schema()["properties"]["template"]["enum"]
    assert set(named) == {"auto", *TEMPLATES} and set(TEMPLATES) == set(REFERENCES) == set(TOKENS)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_named_template_writes_its_published_format(name: str) -> None:
    reference = REFERENCES[name]
    tokenizer = tokenizer_with(bos=reference.bos, eos=reference.eos)

    def render(messages: Any, prompt: bool = False) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                chat_template=TEMPLATES[name],
                tokenize=False,
                add_generation_prompt=prompt,
            )
        )

    assert render(CHAT) == reference.whole
    assert render([SYSTEM, *CHAT]) == reference.with_system
    assert render(CHAT[:1], True) == reference.prompt
    for token in TOKENS[name]:
        assert token in reference.with_system + reference.prompt, f"{token} is not in the format"


def test_qwen3_keeps_the_thought_of_the_last_answer_alone() -> None:
    thoughtful = [
        CHAT[0],
        {"role": "assistant", "content": "<think>\nearly\n</think>\n\nA1"},
        CHAT[2],
        {"role": "assistant", "content": "<think>\nlate\n</think>\n\nA2"},
    ]
    text = tokenizer_with().apply_chat_template(
        thoughtful, chat_template=TEMPLATES["qwen3"], tokenize=False
    )
    assert "early" not in text
    assert text.endswith("<|im_start|>assistant\n<think>\nlate\n</think>\n\nA2<|im_end|>\n")


def test_a_tokenizer_without_a_begin_token_gets_none() -> None:
    same = tokenizer_with(bos="<|endoftext|>", eos="<|endoftext|>")
    text = same.apply_chat_template(CHAT, chat_template=TEMPLATES["llama3"], tokenize=False)
    assert text.startswith("<|start_header_id|>")


def test_a_template_of_another_family_is_refused_with_what_would_fit() -> None:
    tokenizer = tokenizer_with("<|im_start|>", "<|im_end|>", template="{{ messages[0].content }}")
    with pytest.raises(SettingsError) as caught:
        check_fit("llama3", tokenizer)
    said = str(caught.value)
    for word in (
        'model.template = "llama3"',
        "<|start_header_id|>",
        "<|eot_id|>",
        '"auto"',
        '"qwen"',
    ):
        assert word in said
    assert '"gemma"' not in said


def test_a_template_whose_tokens_are_there_is_taken() -> None:
    tokenizer = tokenizer_with("<start_of_turn>", "<end_of_turn>")
    check_fit("gemma", tokenizer)
    assert fitting_templates(tokenizer) == ["gemma", "gemma2", "gemma3"]
    for words in ("alpaca", "vicuna", "llama2", "chatml", "auto"):
        check_fit(words, tokenizer)


def test_it_is_said_what_auto_takes_where_the_tokenizer_brings_no_template() -> None:
    known = tokenizer_with("<|im_start|>", "<|im_end|>")
    assert note("auto", known) == "the tokenizer brings no chat template: chatml is used"
    assert note("chatml", known) is None
    assert note("auto", tokenizer_with(template="{{ messages }}")) is None
    unknown = note("auto", tokenizer_with())
    assert unknown is not None and "<|im_start|> and <|im_end|> are no single tokens" in unknown


def test_the_tokens_that_end_an_answer_are_the_template_s_and_the_tokenizer_s() -> None:
    tokenizer = tokenizer_with("<|im_start|>", "<|im_end|>")
    encoder = ChatEncoder(tokenizer, "chatml", 64, False)
    wanted = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert list(encoder.end_ids()) == wanted
    row = Conversation((Turn("user", "a"), Turn("assistant", "b")), "f, row 1")
    example: Any = encoder.encode([row])[0]
    assert example.labels[example.labels >= 0][-1] == wanted[0]
