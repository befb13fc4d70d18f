"""How a model is served, in a line each. Pure.

As `vllm serve --help`, `transformers serve --help` (transformers 5) and llama.cpp's convert_hf_to_gguf.py have it.
"""

import shlex

from core.train.after.origin import Kind

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank takes."""


def serve_lines(folder: str, kind: Kind, *, trusted: bool = False) -> tuple[str, ...]:
    """Command lines that serve a whole model; `trusted`: it brings code of its own that may run."""
    name = shlex.quote(folder)
    code = " --trust-remote-code" if trusted else ""
    if kind == "reward model":
        return (f"vllm serve {name} --runner pooling{code}",)
    return (
        f"vllm serve {name}{code}",
        f"transformers serve {name}{code}    # then, beside it: transformers chat {name}",
        f"python llama.cpp/convert_hf_to_gguf.py {name} --outfile {shlex.quote(folder + '.gguf')}"
        "    # for llama.cpp and Ollama",
    )


def serve_adapter_lines(folder: str, base: str, rank: int, plain: bool) -> tuple[str, ...]:
    """Command lines that serve an adapter on its base; `plain`: LoRA without DoRA and without whole modules, which is
    all that vLLM takes."""
    if not base or not plain:
        return ()
    most = next((r for r in _VLLM_RANKS if r >= rank), None)
    if most is None:
        return ()
    module = shlex.quote(f"tuned={folder}")
    return (
        f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {most} --lora-modules {module}",
    )
