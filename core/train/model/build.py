"""The model of a trial and its tokenizer: loaded, quantised, and with the weights set that are to train."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from core.params import ModelTable
from core.profile import Profile, model_path
from core.train.errors import ModelError, first_line
from core.train.limits import is_disk_full, is_out_of_memory
from core.train.memory.checkpointing import checkpoint_activations
from core.train.model.adapter import merge_adapter
from core.train.model.source import Source
from core.train.model.trainable import choose_trainable
from core.train.precision import Device, Numbers


def load_tokenizer(profile: Profile, source: Source) -> Any:
    """The model's tokenizer; `source` is what `find_model` found.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    table = profile.model
    tokenizer = _loaded(
        lambda place: AutoTokenizer.from_pretrained(
            place,
            revision=table.model_revision or "main",
            trust_remote_code=table.trust_remote_code,
        ),
        source,
        f"the tokenizer of {model_path(profile)}",
    )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {model_path(profile)} has no end-of-sequence token, so that the end of an answer "
            "cannot be learnt; set eos_token in its tokenizer_config.json"
        )
    return tokenizer


def load_model(profile: Profile, source: Source, numbers: Numbers, device: Device) -> Any:
    """The model with its trainable weights chosen, on its device; `source` is what `find_model` found.

    Raises:
        ModelError: it is not there, is damaged, is no causal language model, or cannot be trained as asked.
    """
    model = load_unprepared(profile, source, numbers, device)
    return prepare(model, profile, numbers, offload_to_host)


def load_unprepared(profile: Profile, source: Source, numbers: Numbers, device: Device) -> Any:
    """The causal language model that trains, on its device, before `prepare` chooses which of its weights do.

    Raises:
        ModelError: it is not there, is damaged, or is no causal language model.
    """
    from transformers import AutoModelForCausalLM

    whole = profile.method.finetuning_type == "full"
    kind = numbers.trained if whole else numbers.frozen
    return load_base(profile, source, numbers, device, AutoModelForCausalLM, kind)


def load_base(
    profile: Profile,
    source: Source,
    numbers: Numbers,
    device: Device,
    loader: Any,
    kind: Any,
    random: Sequence[str] = (),
    **settings: Any,
) -> Any:
    """The model as it is before any of its weights is chosen to train: quantised as [model] says, its weights held in
    the torch.dtype `kind`, the adapter that it begins with (model.adapter_name_or_path) merged into it.

    `loader` is one of transformers' auto classes, `settings` what its from_pretrained takes besides. `random` are parts
    of the names of weights that may begin at random, as a head that the files do not have.

    Raises:
        ModelError: it is not there, is damaged, or is no model of that kind.
    """
    table = profile.model
    options: dict[str, Any] = {}
    if table.attn != "auto":
        options["attn_implementation"] = table.attn
    if table.quantization_bit:
        options["quantization_config"] = _quantization(table, numbers)
    if table.quantization_bit or device == "cuda":
        # Straight to the device, without a copy in the host's memory first.
        options["device_map"] = {"": 0 if device == "cuda" else "cpu"}
    model, info = _loaded(
        lambda place: loader.from_pretrained(
            place,
            dtype=kind,
            revision=table.model_revision or "main",
            trust_remote_code=table.trust_remote_code,
            output_loading_info=True,
            **options,
            **settings,
        ),
        source,
        f"the model {model_path(profile)}",
    )
    missing = (n for n in info["missing_keys"] if not any(part in n.split(".") for part in random))
    _check_complete(missing, model_path(profile))
    if getattr(model, "is_quantized", False):
        if profile.method.finetuning_type != "lora":
            raise ModelError(
                f"the model {model_path(profile)} is quantised, so that its weights cannot train; "
                'set method.finetuning_type = "lora"'
            )
        _keep_trainable_layout(model)
    model = merge_adapter(model, profile)
    model.name_or_path = source.name
    return model


def prepare(
    model: Any,
    profile: Profile,
    numbers: Numbers,
    offload: Callable[[Any], None],
    task: str = "CAUSAL_LM",
    heads: Sequence[str] = (),
) -> Any:
    """Make a loaded model into the one that trains: its weights chosen, its activations kept as [train] says.

    `offload` makes a model send its activations to the host. The memory dry run prepares its models here too, so that
    what it simulates is what runs. `task` and `heads` are those of `choose_trainable`.

    Raises:
        ModelError: the model cannot be trained as asked.
    """
    train = profile.train
    if train.gradient_checkpointing:
        checkpoint_activations(model, train.gradient_checkpointing_every)
        if profile.method.finetuning_type == "freeze":
            _end_backward_early(model)
    if train.offload_activations:
        offload(model)
    if train.loss_chunk_tokens is not None:
        from core.train.memory.loss import chunk_loss

        chunk_loss(model, train.loss_chunk_tokens)
    return choose_trainable(model, profile, numbers, task, heads)


def offload_to_host(model: Any) -> None:
    """Let a model send its activations to the host."""
    from core.train.memory.offload import offload_activations

    offload_activations(model)


def check_fits(model: Any, largest_id: int, longest: int, path: str) -> None:
    """Check that the model has an embedding for every token and every position of the data.

    `longest` is the most tokens of a row. A model with rotary positions takes more than it was made for, if badly.

    Raises:
        ModelError: it has not.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if largest_id >= known:
        raise ModelError(
            f"the tokenizer of {path} makes token {largest_id}, and the model knows {known} tokens: "
            "tokenizer and model do not belong together"
        )
    size = learnt_positions(model)
    if size is not None and longest > size:
        raise ModelError(
            f"the model {path} takes at most {size} tokens, and rows have up to {longest}; "
            f"set data.cutoff_len = {size}"
        )


def learnt_positions(model: Any) -> int | None:
    """How many positions a model has learnt; None where it computes them, and so takes more than it was made for."""
    words = model.get_input_embeddings()
    sizes = [
        module.num_embeddings
        for name, module in model.named_modules()
        if ("pos" in name or name.endswith("wpe"))
        and module is not words
        and hasattr(module, "num_embeddings")
    ]
    return min(sizes, default=None)


def _check_complete(missing: Iterable[str], path: str) -> None:
    names = sorted(missing)
    if names:
        # transformers fills what is missing with random numbers, and goes on.
        raise ModelError(
            f"the model {path} cannot be loaded: its files lack {len(names)} of its weights ({names[0]} is one), "
            "so that they are damaged or do not belong to its config.json"
        )


def _end_backward_early(model: Any) -> None:
    """Take back that transformers makes the embeddings' output need a gradient: checkpoints that are not re-entrant
    work without, and with it the backward pass would go down through all the frozen layers."""
    with contextlib.suppress(AttributeError):
        model.disable_input_require_grads()


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


def _loaded(load: Callable[[str], Any], source: Source, what: str) -> Any:
    """Run `load` on the places of `source` until one works; its failures are many, and each becomes one sentence."""
    for place in source.places[:-1]:
        try:
            return load(place)
        except Exception as error:
            # What the cache holds may be half of a model. The next place says what is wrong with the whole.
            if is_out_of_memory(error):
                raise
    try:
        return load(source.places[-1])
    except Exception as error:
        if is_out_of_memory(error) or is_disk_full(error):
            raise
        raise ModelError(f"{what} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = first_line(error)
    if isinstance(error, KeyError):
        return f"it lacks {text}"
    if "Couldn't instantiate the backend tokenizer" in text:
        return "it has no tokenizer.json or tokenizer.model that can be read"
    if "ignore_mismatched_sizes" in text:
        return "its weights have other sizes than its config.json says"
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
