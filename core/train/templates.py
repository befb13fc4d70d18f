"""Named chat templates as Jinja, for tokenizers that bring none and for who asks for one by name.

Each is the published prompt format of its family. Every answer ends in a marker that the model learns to produce:
the family's own, or the tokenizer's end-of-sequence token. `messages` holds `role` (system, user, assistant) and
`content`, as in transformers.
"""

_BOS = "{% if bos_token and bos_token != eos_token %}{{ bos_token }}{% endif %}"
_BRACKET_TURNS = (
    "{% if message.role == 'user' %}{{ open + system.text + message.content + ' [/INST]' }}"
    "{% set system.text = '' %}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}"
)

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

QWEN = (
    "{% if not messages or messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
) + CHATML

LLAMA2 = (
    "{% set system = namespace(text='') %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}"
    "{% set system.text = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set open = (bos_token or '') + '[INST] ' %}"
    + _BRACKET_TURNS
    + "{% endif %}{% endfor %}"
)

MISTRAL = (
    "{{ bos_token or '' }}{% set system = namespace(text='') %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{% set system.text = message.content + '\\n\\n' %}"
    "{% else %}{% set open = '[INST] ' %}" + _BRACKET_TURNS + "{% endif %}{% endfor %}"
)

LLAMA3 = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

GEMMA = (
    "{{ bos_token or '' }}{% set system = namespace(text='') %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{% set system.text = message.content + '\\n\\n' %}"
    "{% else %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' }}"
    "{% if message.role != 'assistant' %}{{ system.text }}{% set system.text = '' %}{% endif %}"
    "{{ message.content + '<end_of_turn>\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

PHI3 = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

VICUNA = (
    _BOS + "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + ' ' }}"
    "{% elif message.role == 'user' %}{{ 'USER: ' + message.content + ' ASSISTANT:' }}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}"
    "{% endfor %}"
)

ALPACA = (
    _BOS + "{% if not messages or messages[0].role != 'system' %}"
    "{{ 'Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\\n\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\\n\\n' }}"
    "{% elif message.role == 'user' %}{{ '### Instruction:\\n' + message.content + '\\n\\n### Response:\\n' }}"
    "{% else %}{{ message.content + eos_token + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
)

PLAIN = (
    _BOS + "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ message.content + eos_token + '\\n' }}"
    "{% else %}{{ message.content + '\\n' }}{% endif %}"
    "{% endfor %}"
)

TEMPLATES: dict[str, str] = {
    "chatml": CHATML,
    "qwen": QWEN,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi3": PHI3,
    "vicuna": VICUNA,
    "zephyr": ZEPHYR,
    "alpaca": ALPACA,
    "plain": PLAIN,
}
"""Each value of `model.template` but `auto`."""
