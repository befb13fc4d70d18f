"""The published prompt formats of the common families, under the names that LLaMA-Factory gives them.

Each says what a turn looks like, and is made into a Jinja template as transformers takes one. An answer ends in a
marker that the model learns to produce: the family's own, or the tokenizer's end-of-sequence token. Where a family ends
its answers with nothing (glm4, falcon), the encoder closes the last one with the end-of-sequence token.
"""

import json
import re
from dataclasses import dataclass

_SLOT = re.compile(r"(\{content\}|\{bos\}|\{eos\})")
_SLOTS = {
    "{content}": "message.content",
    # A tokenizer whose texts begin with what ends them (GPT-2's) has no token that begins one.
    "{bos}": "(bos_token if bos_token and bos_token != eos_token else '')",
    "{eos}": "eos_token",
}


@dataclass(frozen=True, slots=True)
class Turns:
    """How turns are written. In a text, {content} stands for what is said, {bos} and {eos} for the tokenizer's tokens
    that begin and end a sequence."""

    user: str
    header: str
    """What comes before each answer: the generation prompt."""
    answer: str
    system: str = ""
    """Where `merged`, what is put before the next user's words; else a turn of its own."""
    start: str = ""
    """What the whole begins with."""
    merged: bool = False
    default: str | None = None
    """The system text of a conversation that has none."""
    tokens: tuple[str, ...] = ()
    """What the tokenizer must have as single tokens."""

    @property
    def jinja(self) -> str:
        """The template. `messages` hold `role` (system, user, assistant) and `content`."""
        user = _value(self.user, "system.text + message.content")
        kept = "{% set system.text = " + _value(self.system) + " %}"
        system = kept if self.merged else _shown(self.system)
        default = ""
        if self.default is not None:
            said = f"{{% set message = {{'content': {json.dumps(self.default)}}} %}}"
            default = f"{{% if not messages or messages[0].role != 'system' %}}{said}{system}{{% endif %}}"
        return (
            "{% set system = namespace(text='') %}"
            + (_shown(self.start) if self.start else "")
            + default
            + "{% for message in messages %}{% if message.role == 'system' %}"
            + system
            + "{% elif message.role == 'user' %}{{ "
            + user
            + " }}{% set system.text = '' %}{% else %}"
            + _shown(self.header + self.answer)
            + "{% endif %}{% endfor %}"
            + (
                f"{{% if add_generation_prompt %}}{_shown(self.header)}{{% endif %}}"
                if self.header
                else ""
            )
        )


def _shown(text: str) -> str:
    return "{{ " + _value(text) + " }}"


def _value(text: str, content: str = "message.content") -> str:
    """`text` as a Jinja expression."""
    slots = _SLOTS | {"{content}": content}
    parts = [part for part in _SLOT.split(text) if part]
    return " + ".join(slots.get(part) or json.dumps(part, ensure_ascii=False) for part in parts)


def _chatml(default: str | None = None, start: str = "") -> Turns:
    return Turns(
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        header="<|im_start|>assistant\n",
        answer="{content}<|im_end|>\n",
        default=default,
        start=start,
        tokens=("<|im_start|>", "<|im_end|>"),
    )


def _gemma() -> Turns:
    return Turns(
        start="{bos}",
        system="{content}\n\n",
        merged=True,
        user="<start_of_turn>user\n{content}<end_of_turn>\n",
        header="<start_of_turn>model\n",
        answer="{content}<end_of_turn>\n",
        tokens=("<start_of_turn>", "<end_of_turn>"),
    )


def _phi3() -> Turns:
    return Turns(
        system="<|system|>\n{content}<|end|>\n",
        user="<|user|>\n{content}<|end|>\n",
        header="<|assistant|>\n",
        answer="{content}<|end|>\n",
        tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    )


TURNS: dict[str, Turns] = {
    "default": Turns(
        system="System: {content}{eos}\n",
        user="Human: {content}{eos}\n",
        header="Assistant:",
        answer="{content}{eos}\n",
        start="{bos}",
    ),
    "plain": Turns(
        system="{content}\n",
        user="{content}\n",
        header="",
        answer="{content}{eos}\n",
        start="{bos}",
    ),
    "alpaca": Turns(
        system="{content}\n\n",
        user="### Instruction:\n{content}\n\n",
        header="### Response:\n",
        answer="{content}{eos}\n\n",
        start="{bos}",
        default=(
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request."
        ),
    ),
    "vicuna": Turns(
        system="{content} ",
        user="USER: {content} ",
        header="ASSISTANT:",
        answer=" {content}{eos}",
        start="{bos}",
        default=(
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions."
        ),
    ),
    "chatml": _chatml(),
    "qwen": _chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen3_nothink": _chatml(),
    "yi": _chatml(),
    "smollm2": _chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "intern2": _chatml(start="{bos}"),
    "llama2": Turns(
        system="<<SYS>>\n{content}\n<</SYS>>\n\n",
        merged=True,
        user="{bos}[INST] {content} [/INST]",
        header="",
        answer=" {content} {eos}",
    ),
    "llama3": Turns(
        start="{bos}",
        system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
        header="<|start_header_id|>assistant<|end_header_id|>\n\n",
        answer="{content}<|eot_id|>",
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "llama4": Turns(
        start="{bos}",
        system="<|header_start|>system<|header_end|>\n\n{content}<|eot|>",
        user="<|header_start|>user<|header_end|>\n\n{content}<|eot|>",
        header="<|header_start|>assistant<|header_end|>\n\n",
        answer="{content}<|eot|>",
        tokens=("<|header_start|>", "<|header_end|>", "<|eot|>"),
    ),
    "mistral": Turns(
        start="{bos}",
        system="{content}\n\n",
        merged=True,
        user="[INST] {content}[/INST]",
        header="",
        answer=" {content}{eos}",
    ),
    "ministral": Turns(
        start="{bos}",
        system="{content}\n\n",
        merged=True,
        user="[INST]{content}[/INST]",
        header="",
        answer="{content}{eos}",
        tokens=("[INST]", "[/INST]"),
    ),
    "mistral_small": Turns(
        start="{bos}",
        system="[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]",
        user="[INST]{content}[/INST]",
        header="",
        answer="{content}{eos}",
        tokens=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
    "gemma": _gemma(),
    "gemma2": _gemma(),
    "gemma3": _gemma(),
    "phi": _phi3(),
    "phi3": _phi3(),
    "phi4": Turns(
        system="<|im_start|>system<|im_sep|>{content}<|im_end|>",
        user="<|im_start|>user<|im_sep|>{content}<|im_end|>",
        header="<|im_start|>assistant<|im_sep|>",
        answer="{content}<|im_end|>",
        tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    ),
    "phi4_mini": Turns(
        system="<|system|>{content}<|end|>",
        user="<|user|>{content}<|end|>",
        header="<|assistant|>",
        answer="{content}<|end|>",
        tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "deepseek": Turns(
        start="{bos}",
        system="{content}\n\n",
        user="User: {content}\n\n",
        header="Assistant:",
        answer=" {content}{eos}",
    ),
    "deepseek3": Turns(
        start="{bos}",
        system="{content}",
        user="<｜User｜>{content}",
        header="<｜Assistant｜>",
        answer="{content}{eos}",
        tokens=("<｜User｜>", "<｜Assistant｜>"),
    ),
    "glm4": Turns(
        start="[gMASK]<sop>",
        system="<|system|>\n{content}",
        user="<|user|>\n{content}",
        header="<|assistant|>\n",
        answer="{content}",
        tokens=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
    ),
    "zephyr": Turns(
        system="<|system|>\n{content}{eos}\n",
        user="<|user|>\n{content}{eos}\n",
        header="<|assistant|>\n",
        answer="{content}{eos}\n",
    ),
    "falcon": Turns(
        system="System: {content}\n",
        user="User: {content}\n",
        header="Falcon:",
        answer=" {content}\n",
    ),
    "openchat": Turns(
        start="{bos}",
        system="{content}<|end_of_turn|>",
        user="GPT4 Correct User: {content}<|end_of_turn|>",
        header="GPT4 Correct Assistant:",
        answer=" {content}<|end_of_turn|>",
        tokens=("<|end_of_turn|>",),
    ),
    "granite3": Turns(
        system="<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n",
        user="<|start_of_role|>user<|end_of_role|>{content}<|end_of_text|>\n",
        header="<|start_of_role|>assistant<|end_of_role|>",
        answer="{content}<|end_of_text|>\n",
        tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    "cohere": Turns(
        start="{bos}",
        system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
        user="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
        header="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        answer="{content}<|END_OF_TURN_TOKEN|>",
        tokens=("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
}
"""The families whose turns look alike wherever they stand."""

CHATML = TURNS["chatml"].jinja

QWEN3 = (
    "{% set last = namespace(user=-1) %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% set content = message.content %}"
    "{% if message.role == 'assistant' %}"
    "{% set said = content.split('</think>') %}"
    "{% set thought = said[0].split('<think>')[-1].strip('\\n') if said[1:] else '' %}"
    "{% set content = said[-1].lstrip('\\n') %}"
    "{% if loop.index0 > last.user %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
    "{{ content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Earlier answers lose their thoughts; those after the last question carry one, an empty one if need be."""

TEMPLATES: dict[str, str] = {name: turns.jinja for name, turns in TURNS.items()} | {"qwen3": QWEN3}
"""Each value of `model.template` but `auto`, as Jinja."""

TOKENS: dict[str, tuple[str, ...]] = {name: turns.tokens for name, turns in TURNS.items()} | {
    "qwen3": ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
}
"""What a tokenizer must have as single tokens for each of them."""
