"""A base and its adapter become one model."""

from typing import Any

from core.train.errors import ModelError


def merge(adapted: Any) -> Any:
    """The model with its adapter merged into the weights; `adapted` is of no use afterwards.

    The change of a weight is computed in the adapter's numbers and rounded once to the weight's.

    Raises:
        ModelError: the weights are quantised, or what comes out is not finite.
    """
    if getattr(adapted, "is_quantized", False) or any(
        getattr(p, "quant_state", None) is not None for p in adapted.parameters()
    ):
        raise ModelError("an adapter is not merged into quantised weights")
    merged = adapted.merge_and_unload()
    check_finite(merged, "merging")
    return merged


def check_finite(model: Any, when: str) -> None:
    """Refuse a model with weights that are no numbers.

    Raises:
        ModelError: some are NaN or infinite; it names the first.
    """
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            numbers = "; fp16 holds nothing above 65,504: take --dtype bf16"
            raise ModelError(
                f"after {when}, {name} holds what is no number (NaN or infinite)"
                + (numbers if str(weight.dtype) == "torch.float16" else ": this run diverged")
            )


def settle_ties(model: Any) -> None:
    """Say in the configuration whether input and output embeddings are one: where they are not and it says so, saving
    would leave the head out."""
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or words is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    if head.weight is not words.weight and head.weight.data_ptr() != words.weight.data_ptr():
        model.config.tie_word_embeddings = False
