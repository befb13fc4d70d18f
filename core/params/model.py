"""The table [model]: which model is tuned, and how it is loaded."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.table import LORA, QUANTIZED, Doc, Table


class ModelTable(Table):
    """Which model is tuned, and how it is loaded."""

    model_name_or_path: Annotated[
        str,
        Field(
            min_length=1,
            description="The model to start from: a folder, a .gguf file, or a name on the Hugging Face hub. A path that "
            "is not absolute is looked up from the folder of the profile, then from where tunedeck was started. "
            "`demo` is the small model that tunedeck ships.",
        ),
        Doc("Model", llamafactory="model_name_or_path"),
    ]
    adapter_name_or_path: Annotated[
        str | None,
        Field(
            description="A LoRA adapter of this model to begin with: it is merged into the model in memory before anything trains. Not with a "
            "quantised model, into which nothing can be merged: `tunedeck export` makes one model of both first.",
        ),
        Doc(
            "Adapter to begin with",
            works="not set",
            llamafactory="adapter_name_or_path",
            advanced=True,
        ),
    ] = None
    template: Annotated[
        Literal[
            "auto", "default", "alpaca", "chatml", "cohere", "deepseek", "deepseek3", "falcon", "gemma",
            "gemma2", "gemma3", "glm4", "granite3", "intern2", "llama2", "llama3", "llama4", "ministral",
            "mistral", "mistral_small", "openchat", "phi", "phi3", "phi4", "phi4_mini", "plain", "qwen",
            "qwen3", "qwen3_nothink", "smollm2", "vicuna", "yi", "zephyr",
        ],
        Field(
            description="How a conversation becomes text. `auto` takes the tokenizer's own chat template, and `chatml` "
            "where it has none; the others are the formats of the families that they are named after, as in LLaMA-Factory, and are refused "
            "where the tokenizer lacks their tokens. A model that was tuned with one template and is used with another answers badly, so "
            "change it only if you know that the model was trained with it."
        ),
        Doc("Chat template", works="auto", llamafactory="template"),
    ] = "auto"  # fmt: skip
    quantization_bit: Annotated[
        Literal[4, 8] | None,
        Field(
            description="Hold the frozen base model in 4 or 8 bits (bitsandbytes) and train LoRA adapters on it: QLoRA. "
            "It divides the memory of the linear layers' weights by about 4 or 2 against bf16 (embeddings stay as they are) "
            "and costs some speed. It does little for a run "
            "that dies of activations: look at what dominates the peak first."
        ),
        Doc(
            "Quantisation",
            works="4 for QLoRA; not set otherwise",
            when=LORA,
            llamafactory="quantization_bit",
        ),
    ] = None
    quantization_type: Annotated[
        Literal["nf4", "fp4"],
        Field(
            description="The 4-bit number format. nf4 fits normally distributed weights and is nearly always better."
        ),
        Doc(
            "4-bit type",
            works="nf4",
            when=QUANTIZED,
            llamafactory="quantization_type",
            advanced=True,
        ),
    ] = "nf4"
    double_quantization: Annotated[
        bool,
        Field(
            description="Quantise the 4-bit scales as well: saves about 0.4 bit a weight at next to no cost."
        ),
        Doc(
            "Double quantisation",
            works="true",
            when=QUANTIZED,
            llamafactory="double_quantization",
            advanced=True,
        ),
    ] = True
    attn: Annotated[
        Literal["auto", "eager", "sdpa", "flash_attention_2"],
        Field(
            description="The attention kernel. `sdpa` is PyTorch's own and the default of transformers; `eager` is slow "
            "and holds the whole attention matrix in memory; `flash_attention_2` needs the flash-attn package and CUDA."
        ),
        Doc("Attention", works="auto", llamafactory="flash_attn", advanced=True),
    ] = "auto"
    model_revision: Annotated[
        str | None,
        Field(
            description="Branch, tag or commit of a hub model. A commit makes the run reproducible."
        ),
        Doc("Revision", llamafactory="model_revision", advanced=True),
    ] = None
    trust_remote_code: Annotated[
        bool,
        Field(
            description="Run Python code that comes with the model. It can do anything that you can: only for models whose code you trust."
        ),
        Doc("Trust remote code", works="false", llamafactory="trust_remote_code", advanced=True),
    ] = False
