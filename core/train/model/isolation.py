"""Whether a model keeps the rows of a packed sequence apart: tried out on a few tokens, as no config says it.

Models whose attention is made of positions do, where transformers makes their masks. State-space and recurrent layers
run over the border between rows, and models with ALiBi count distances from the sequence's begin.

It is tried out twice: before the model is loaded on a small one of its kind, with random weights, so that who has to
wait for the real one need not wait to be refused; and on the real one, which has the last word.
"""

import inspect
from typing import Any

import torch

from core.profile import Profile, model_path
from core.train.errors import SettingsError
from core.train.model.source import Source

_ROW = 6
"""Tokens of each row of the trial."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_TOLERANCE_HALF = 0.25
"""How far scores may be off, in standard deviations of the scores: what rounding makes of another order of sums."""
_SMALL = {
    2: ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    16: ("num_experts", "num_local_experts", "n_routed_experts"),
    64: ("vocab_size", "intermediate_size", "ffn_dim", "n_inner", "moe_intermediate_size"),
}
"""What keys of a config become, where they are there and larger."""
_MOST = 50_000_000
"""Weights that a small model may have."""


def check_kind(profile: Profile, source: Source) -> None:
    """Check, before the model of `profile` is loaded from `source`, that its kind computes packed rows as rows apart.
    Kinds of which no small model can be made are left to `check_apart`.

    Raises:
        SettingsError: it does not; the message says why and what to do.
    """
    path = model_path(profile)
    try:
        model = _small_model(profile, source)
    except Exception:
        # Configs have no rules that hold for all: the loaded model will tell.
        return
    if model is not None:
        check_apart(model, path)


def check_apart(model: Any, path: str) -> None:
    """Check that `model`, which is loaded, computes packed rows as it does rows apart.

    Raises:
        SettingsError: it does not; the message says why and what to do.
    """
    check_positions(model, path)
    if getattr(model.config, "_attn_implementation", None) == "flash_attention_2":
        # Its kernel takes the rows' lengths and needs no mask; it runs on a GPU alone.
        return
    off = _difference(model, next(model.parameters()).device)
    limit = _TOLERANCE.get(_dtype(model), _TOLERANCE_HALF)
    if off > limit:
        raise _refusal(path, "what a row computes depends on the rows before it")


def check_positions(model: Any, path: str) -> None:
    """Check that `model` takes positions, without which there is no telling packed rows apart. Nothing is computed.

    Raises:
        SettingsError: it does not.
    """
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    # The class's: an instance's may have been put in its place.
    if "position_ids" not in inspect.signature(type(inner).forward).parameters:
        raise _refusal(path, "it takes no positions, by which rows are told apart")


def _difference(model: Any, device: Any) -> float:
    """How far the scores of a row are off that comes after another one, in standard deviations."""
    words = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    row, before, other = torch.randint(0, words, (3, _ROW), generator=generator).to(device)
    packed = torch.stack([torch.cat([before, row]), torch.cat([other, row])])
    once = torch.arange(_ROW, device=device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = model(input_ids=row[None], position_ids=once[None], use_cache=False).logits
            after = model(
                input_ids=packed,
                position_ids=torch.cat([once, once]).expand(2, -1),
                use_cache=False,
            ).logits[:, _ROW:]
    finally:
        model.train(training)
    scores = alone.float()
    return float((after.float() - scores).abs().max() / scores.std().clamp_min(1e-12))


def _small_model(profile: Profile, source: Source) -> Any:
    """A model of the kind that is found there, of two narrow layers, which runs; without weights where it takes no
    positions. None where it would not be small.

    Raises:
        Exception: of any kind, where none can be made or run.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    table = profile.model
    trust = {"trust_remote_code": table.trust_remote_code}
    flash = table.attn == "flash_attention_2"
    options = {} if table.attn == "auto" or flash else {"attn_implementation": table.attn}
    config = AutoConfig.from_pretrained(
        source.places[0], revision=table.model_revision or "main", **trust
    )
    if config.get_text_config() is not config:
        # One that sees or hears has towers besides, which are as large as ever.
        return None
    _shrink(config)

    def make() -> Any:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options, **trust)

    with torch.device("meta"):
        model = make()
    try:
        check_positions(model, "")
    except SettingsError:
        return model
    if flash or model.num_parameters() > _MOST:
        # Flash-attn's kernels run on a GPU alone, where all that could be looked at are the positions.
        return None
    with torch.random.fork_rng(devices=[]):
        model = make()
    _difference(model, torch.device("cpu"))
    return model


def _shrink(config: Any) -> None:
    """Make a config one of a small model of the same kind."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, key, None)
    for size, keys in _SMALL.items():
        for key in keys:
            if isinstance(getattr(config, key, None), int):
                setattr(config, key, min(size, getattr(config, key)))
    heads, width = (getattr(config, key, None) for key in ("num_attention_heads", "hidden_size"))
    if not isinstance(heads, int) or not isinstance(width, int):
        return
    shared = getattr(config, "num_key_value_heads", None) or heads
    few = max(2, heads // shared)
    config.num_attention_heads = few
    config.hidden_size = few * (width // heads)
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = 1 if shared < heads else few


def _dtype(model: Any) -> Any:
    """The least exact type that the model computes in."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return (
        torch.float32
        if types == {torch.float32}
        else (torch.float64 if types == {torch.float64} else torch.bfloat16)
    )


def _refusal(path: str, reason: str) -> SettingsError:
    return SettingsError(
        f"packed rows of {path} would see each other: {reason}. Set data.neat_packing = false, so that they may, or "
        "data.packing = false"
    )
