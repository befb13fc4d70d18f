"""The model of a trial and its tokenizer: loaded, quantised, and with the weights set that are to train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.params import ModelTable
from core.profile import Profile, model_path
from core.train.errors import ModelError, UsageError, first_line
from core.train.gguf import unpacked
from core.train.limits import is_out_of_memory
from core.train.precision import Device, Numbers
from core.train.trainable import choose_trainable


def load_tokenizer(profile: Profile, name: str) -> Any:
    """The model's tokenizer; `name` is what `find_model` found.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    table = profile.model
    tokenizer = _loaded(
        lambda: AutoTokenizer.from_pretrained(
            name, trust_remote_code=table.trust_remote_code, revision=table.model_revision or "main"
        ),
        f"the tokenizer of {model_path(profile)}",
    )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {model_path(profile)} has no end-of-sequence token, so that the end of an answer "
            "cannot be learnt; set eos_token in its tokenizer_config.json"
        )
    return tokenizer


def load_model(profile: Profile, name: str, numbers: Numbers, device: Device) -> Any:
    """The model with its trainable weights chosen, on its device; `name` is what `find_model` found.

    Raises:
        ModelError: it is not there, is damaged, is no causal language model, or cannot be trained as asked.
    """
    from transformers import AutoModelForCausalLM

    table = profile.model
    options: dict[str, Any] = {}
    if table.attn != "auto":
        options["attn_implementation"] = table.attn
    if table.quantization_bit:
        options["quantization_config"] = _quantization(table, numbers)
        options["device_map"] = {"": 0 if device == "cuda" else "cpu"}
    whole = profile.method.finetuning_type == "full"
    model = _loaded(
        lambda: AutoModelForCausalLM.from_pretrained(
            name,
            dtype=numbers.trained if whole else numbers.frozen,
            revision=table.model_revision or "main",
            trust_remote_code=table.trust_remote_code,
            **options,
        ),
        f"the model {model_path(profile)}",
    )
    if device == "cpu" and table.quantization_bit == 4:
        _keep_trainable_layout(model)
    if device == "cuda" and not table.quantization_bit:
        model = model.to("cuda")
    if profile.train.gradient_checkpointing:
        _checkpoint_activations(model)
    return choose_trainable(model, profile, numbers)


def check_vocabulary(model: Any, largest_id: int, path: str) -> None:
    """Raise ModelError where the tokenizer knows tokens that the model has no embedding for."""
    size = int(model.get_input_embeddings().num_embeddings)
    if largest_id >= size:
        raise ModelError(
            f"the tokenizer of {path} makes token {largest_id}, and the model knows {size} tokens: "
            "tokenizer and model do not belong together"
        )


def _checkpoint_activations(model: Any) -> None:
    # Frozen embeddings give no gradient for the recomputation to hang on to; the hook makes their output need one.
    model.enable_input_require_grads()
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _keep_trainable_layout(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights for CPU inference, as it does in the first evaluation: it does not
    unpack them again, and no gradient passes through the packed ones."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _quantization(table: ModelTable, numbers: Numbers) -> Any:
    from transformers import BitsAndBytesConfig

    if table.quantization_bit == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=numbers.compute,
        bnb_4bit_quant_type=table.quantization_type,
        bnb_4bit_use_double_quant=table.double_quantization,
    )


def find_model(profile: Profile, spare: Path, check: Callable[[], None]) -> str:
    """What from_pretrained takes: a folder or a hub name. A .gguf file is unpacked into a folder first.

    `spare` and `check` are those of `gguf.unpacked`.

    Raises:
        ModelError: there is no such folder or file.
    """
    path = model_path(profile)
    file = Path(path)
    looks_like_path = (
        path.startswith(("/", ".", "~")) or path.count("/") > 1 or path.endswith(".gguf")
    )
    if looks_like_path and not file.exists():
        raise ModelError(f"model.model_name_or_path: there is no {path}")
    if not file.is_file():
        return path
    if file.suffix.lower() != ".gguf":
        raise ModelError(
            f"model.model_name_or_path: {path} is a file; a model is a folder, a .gguf file or a hub name"
        )
    return str(unpacked(file.resolve(), spare, check))


def _loaded(load: Callable[[], Any], what: str) -> Any:
    """Run `load`, whose failures are many and are the input's: each becomes one sentence."""
    try:
        return load()
    except UsageError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{what} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = first_line(error)
    if isinstance(error, KeyError):
        return f"it lacks {text}"
    if type(error).__name__ == "SafetensorError":
        return f"its weights are damaged ({text})"
    if "does not appear to have a file named" in text or "Repo id must be" in text:
        return text
    if (
        "couldn't connect" in text.lower()
        or "not a local folder" in text
        or "not a valid model identifier" in text
    ):
        return f"there is no such folder, and the Hugging Face hub does not answer or has no such model ({text})"
    if "Unrecognized configuration class" in text:
        return "it is no causal language model"
    return text
