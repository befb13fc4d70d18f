"""Trained models as they are used after training: whole, or a base with its adapter, and their tokenizer."""

import warnings
from pathlib import Path
from typing import Any

from core.params import ModelTable
from core.study.after import Device, Dtype
from core.train.after.origin import Kind, Origin, base_source
from core.train.data.chat import ChatEncoder
from core.train.errors import ModelError, first_line
from core.train.limits import is_out_of_memory
from core.train.model.adapter import merge_adapter
from core.train.model.source import Source

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def torch_dtype(name: Dtype) -> Any:
    """A torch.dtype, or "auto", by its name in a request."""
    import torch

    return {
        "auto": "auto",
        "fp32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }[name]


def dtype_name(dtype: Any) -> str:
    """The name of a torch.dtype, as people say it."""
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    text = str(dtype).removeprefix("torch.")
    return names.get(text, text)


def load_whole(
    source: Source,
    table: ModelTable,
    kind: Kind,
    dtype: Any,
    device: Device,
    complete: bool = True,
    **options: Any,
) -> Any:
    """A model from the first place of `source` that has it, in `dtype`, on `device`, ready to be asked.

    `complete` is False where weights may be missing: the score head of a base that an adapter brings.

    Raises:
        ModelError: it cannot be loaded, or weights are missing.
    """
    import transformers

    model_class = transformers.AutoModelForCausalLM
    if kind == "reward model":
        model_class = transformers.AutoModelForSequenceClassification
        options = {"num_labels": 1, **options}
    if device == "cuda":
        # Straight to the device, without a copy in the host's memory first.
        options = {"device_map": {"": 0}, **options}
    problem: Exception | None = None
    for place in source.places:
        try:
            model, info = model_class.from_pretrained(
                place,
                dtype=dtype,
                revision=table.model_revision or "main",
                trust_remote_code=table.trust_remote_code,
                output_loading_info=True,
                **options,
            )
            break
        except Exception as error:
            if is_out_of_memory(error):
                raise
            problem = error
    else:
        assert problem is not None, "a source has a place"
        raise ModelError(
            f"the model {source.name} cannot be loaded: {first_line(problem)}"
        ) from problem
    missing = sorted(info["missing_keys"])
    if complete and missing:
        raise ModelError(
            f"the model {source.name} cannot be loaded: its files lack {len(missing)} of its weights "
            f"({missing[0]} is one)"
        )
    return model.eval()


def load_base(origin: Origin, dtype: Any, device: Device, **options: Any) -> Any:
    """The model as it was when training began, the adapter that training began with (model.adapter_name_or_path)
    merged into it as training did.

    Raises:
        ModelError: it is not there or cannot be loaded, or that adapter does not fit it.
    """
    source = base_source(origin)
    model = load_whole(
        source,
        origin.profile.model,
        origin.kind,
        dtype,
        device,
        complete=origin.kind == "model",
        **options,
    )
    return merge_adapter(model, origin.profile).eval()


def add_adapter(model: Any, folder: Path) -> Any:
    """The model wrapped in the adapter of `folder`, with its vocabulary grown to the adapter's.

    Raises:
        ModelError: the adapter does not belong to the model, or is damaged.
    """
    from peft import PeftModel

    try:
        _grow_vocabulary(model, folder)
        _untie(model, folder)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, ModelError):
            raise
        if not folder.is_dir():
            raise ModelError(
                f"{folder} is gone: a run that goes on deletes its old checkpoints (train.save_total_limit); name a "
                "newer one"
            ) from None
        raise ModelError(
            f"the adapter {folder} does not fit its base model: {first_line(error)}"
        ) from error
    lacking = [str(w.message) for w in said if "missing adapter keys" in str(w.message)]
    if lacking:
        raise ModelError(f"the adapter {folder} does not belong to this base model: {lacking[0]}")
    return adapted.eval()


def load_tokenizer(origin: Origin, source: Source | None) -> Any:
    """The tokenizer with the chat template that training used. Checkpoints have none: then it is the base's.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    table = origin.profile.model
    own = has_tokenizer(origin.folder)
    places = (str(origin.folder),) if own or source is None else source.places
    problem: Exception | None = None
    for place in places:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                place, trust_remote_code=table.trust_remote_code
            )
            break
        except Exception as error:
            problem = error
    else:
        assert problem is not None, "there is a place"
        raise ModelError(f"the tokenizer of {places[-1]} cannot be loaded: {first_line(problem)}")
    if not own and origin.known:
        tokenizer.chat_template = ChatEncoder(
            tokenizer, table.template, origin.profile.data.cutoff_len, False
        ).jinja
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in a folder."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def tie(model: Any) -> bool:
    """Whether the model's input and output embeddings are one tensor."""
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    return head is not None and words is not None and head.weight is words.weight


def _untie(model: Any, folder: Path) -> None:
    """Give the output head weights of its own where the adapter changes one of two that are tied: merging into both
    would change what training left alone."""
    import torch
    from peft import PeftConfig

    if not tie(model):
        return
    config = PeftConfig.from_pretrained(str(folder))
    if getattr(config, "ensure_weight_tying", False):
        return
    named = {*(config.modules_to_save or ())}
    targets = config.target_modules
    both = {name.split(".")[-1] for name, module in model.named_modules() if module in
            (model.get_input_embeddings(), model.get_output_embeddings())}  # fmt: skip
    if isinstance(targets, str):
        import re

        named |= {n for n in both if re.search(rf"(^|[.|(]){re.escape(n)}($|[|)])", targets)}
    else:
        named |= set(targets or ())
    if not both & {name.split(".")[-1] for name in named}:
        return
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def _grow_vocabulary(model: Any, folder: Path) -> None:
    """Give the model as many embeddings as the adapter saved, where training began with more than the base has."""
    rows = _saved_vocabulary(folder)
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _saved_vocabulary(folder: Path) -> int | None:
    """Rows of the embeddings that an adapter carries; None where it carries none."""
    from safetensors import safe_open

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                shape = tensors.get_slice(name).get_shape()
                words = ("embed_tokens", "lm_head", "wte", "embed_in", "word_embeddings")
                whole = "lora_" not in name and name.endswith("weight")
                if whole and any(f".{w}." in name for w in words):
                    return int(shape[0])
    except Exception as error:
        raise ModelError(f"{file} is damaged: {first_line(error)}") from None
    return None
