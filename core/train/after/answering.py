"""A model answers many questions, a batch at a time."""

from collections.abc import Callable, Sequence
from typing import Any

from core.study.after import Sampling
from core.train.errors import ModelError, first_line
from core.train.limits import is_out_of_memory


def answer_all(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    ends: Sequence[int],
    batch_size: int,
    on_done: Callable[[int], None],
) -> list[str]:
    """The answers to `prompts` (token ids), in their order; an empty prompt has none ("").

    Prompts of like length share a batch. `on_done` is told how many are answered.

    Raises:
        ModelError: the model's scores are no numbers.
    """
    import torch
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    drawn = sampling.temperature is None or sampling.temperature > 0
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens or 256,
        do_sample=drawn,
        temperature=(sampling.temperature or 1.0) if drawn else None,
        top_p=sampling.top_p if drawn else None,
        top_k=sampling.top_k if drawn else None,
        repetition_penalty=sampling.repetition_penalty or 1.0,
        eos_token_id=list(ends),
        pad_token_id=pad,
    )
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    device = next(model.parameters()).device
    order = sorted(
        (i for i in range(len(prompts)) if len(prompts[i])), key=lambda i: -len(prompts[i])
    )
    answers = [""] * len(prompts)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = _padded([prompts[i] for i in chosen], pad)
            try:
                made = model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    generation_config=config,
                )
            except RuntimeError as error:
                if is_out_of_memory(error) or "probability tensor" not in str(error):
                    raise
                raise ModelError(
                    f"the model's scores are no numbers: it diverged in training ({first_line(error)})"
                ) from None
            for i, row in zip(chosen, made[:, ids.shape[1] :], strict=True):
                answers[i] = str(tokenizer.decode(row, skip_special_tokens=True))
            on_done(min(start + batch_size, len(order)))
    return answers


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Any, Any]:
    """Token ids padded on the left, so that all answers begin in one column, and their mask."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.as_tensor(list(row), dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids, mask
