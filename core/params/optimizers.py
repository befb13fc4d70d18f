"""The optimizers that transformers 5.23 has (training_args.OptimizerNames) and tunedeck does not offer, and why."""

_BACKWARD = (
    "it updates each weight while the backward pass goes on, so that batches cannot be accumulated, gradients cannot be "
    "cut to a length together, and its states are in no checkpoint"
)
_SCHEDULE_FREE = (
    "it evaluates and saves other weights than it trains, and has no schedule that a probe and the full training could "
    "share"
)
_ADEMAMIX = (
    "its slow average remembers 10,000 updates (arXiv 2409.03137), more than a fine-tuning has; "
    'take "adamw_torch" or, for 8-bit states, "adamw_8bit"'
)
_RMSPROP = 'it is Adam without a momentum or a weight decay of its own; take "adamw_torch" with adam_beta1 = 0'
_TORCHAO = (
    "tunedeck has not been tried with its package, torchao; "
    '"adamw_8bit" holds its states in 8 bits, "galore_adamw" fewer of them'
)

REFUSED: tuple[tuple[str, str], ...] = (
    ("adamw_bnb_8bit", 'it is "adamw_8bit" by another name'),
    ("adamw_torch_xla", "it is for TPUs"),
    ("adamw_torch_npu_fused", "it is for Ascend NPUs"),
    (
        "adamw_anyprecision",
        'its package, torchdistx, is no longer maintained; take precision = "pure_bf16" for states of 16 bits',
    ),
    ("adamw_torch_4bit", _TORCHAO),
    ("adamw_torch_8bit", _TORCHAO),
    ("ademamix", _ADEMAMIX),
    ("ademamix_8bit", _ADEMAMIX),
    ("paged_ademamix_32bit", _ADEMAMIX),
    ("paged_ademamix_8bit", _ADEMAMIX),
    (
        "adagrad",
        'its steps only ever get shorter, whatever the schedule says; take "adamw_torch" or "adafactor"',
    ),
    ("rmsprop", _RMSPROP),
    ("rmsprop_bnb", _RMSPROP),
    ("rmsprop_bnb_8bit", _RMSPROP),
    ("rmsprop_bnb_32bit", _RMSPROP),
    ("galore_adamw_layerwise", f'{_BACKWARD}; take "galore_adamw"'),
    ("galore_adamw_8bit_layerwise", f'{_BACKWARD}; take "galore_adamw_8bit"'),
    ("galore_adafactor_layerwise", f'{_BACKWARD}; take "galore_adafactor"'),
    ("apollo_adamw_layerwise", f'{_BACKWARD}; take "apollo_adamw"'),
    ("lomo", f'{_BACKWARD}; take "sgd", which holds as little besides the gradients'),
    ("adalomo", f'{_BACKWARD}; take "adafactor", which holds as little besides the gradients'),
    (
        "grokadamw",
        "transformers gives it no signal to follow, and without one it is AdamW with amplified gradients; take "
        '"adamw_torch"',
    ),
    ("schedule_free_radam", f'{_SCHEDULE_FREE}; take "adamw_torch"'),
    ("schedule_free_adamw", f'{_SCHEDULE_FREE}; take "adamw_torch"'),
    ("schedule_free_sgd", f'{_SCHEDULE_FREE}; take "sgd"'),
    (
        "stable_adamw",
        'tunedeck has not been tried with its package, torch-optimi; "adamw_torch" with max_grad_norm below 1 and '
        "adam_beta2 = 0.95 bears spikes too",
    ),
)
"""Each value of train.optim that other tools take, with what is told of it."""
