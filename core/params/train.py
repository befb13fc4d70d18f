"""The table [train]: how the weights are moved."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.optimizers import REFUSED
from core.params.table import CHECKPOINTED, Doc, Table, When


class TrainTable(Table):
    """How the weights are moved."""

    learning_rate: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="The length of a step: update = rate × gradient. Too high: the loss shakes, rises, becomes NaN. Too low: "
            "nothing happens for epochs. LoRA bears about ten times the rate of full fine-tuning; stages dpo, kto and ppo want "
            "one that is twenty to forty times lower than sft's. When the effective batch doubles, the rate bears √2 times as much.",
        ),
        Doc(
            "Learning rate",
            works="LoRA, QLoRA 3e-5 – 1e-3 (start at 2e-4); full 2e-6 – 5e-5 (start at 1e-5)",
            llamafactory="learning_rate",
        ),
    ] = 2e-4
    per_device_train_batch_size: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            description="Rows that one GPU computes at once. Activations grow in proportion: this is the first thing to halve "
            "when memory runs out, with the accumulation doubled so that the effective batch stays.",
        ),
        Doc("Batch per device", works="1 – 16", llamafactory="per_device_train_batch_size"),
    ] = 4
    gradient_accumulation_steps: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            description="Batches whose gradients are added up before one update. Effective batch = per-device batch × "
            "accumulation × GPUs. It saves activations and costs time; in full fine-tuning it keeps gradients "
            "alive between batches, which can cost memory.",
        ),
        Doc("Accumulation", works="1 – 16", llamafactory="gradient_accumulation_steps"),
    ] = 4
    per_device_eval_batch_size: Annotated[
        int | None,
        Field(
            ge=1, le=4096, description="Rows evaluated at once. Not set: the same as for training."
        ),
        Doc("Eval batch", llamafactory="per_device_eval_batch_size", advanced=True),
    ] = None
    num_train_epochs: Annotated[
        float,
        Field(
            gt=0,
            le=1000,
            description="Passes over the data of the full training. Instruction data is usually learnt in 1 to 3; more "
            "overfits small sets. max_steps overrides it.",
        ),
        Doc("Epochs", works="1 – 3", llamafactory="num_train_epochs"),
    ] = 3.0
    max_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000_000,
            description="End the full training after this many updates, whatever the epochs say.",
        ),
        Doc("Most steps", works="not set", llamafactory="max_steps"),
    ] = None
    lr_scheduler_type: Annotated[
        Literal[
            "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
            "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
            "warmup_stable_decay", "greedy",
        ],
        Field(
            description="How the rate changes over the run, after warm-up: down to zero (`linear`, `cosine`, `polynomial`), not "
            "at all (`constant`, `constant_with_warmup`), in cycles, with 1/√step, or by the evaluation (the loss, or what the study "
            "ranks by): down when it gets no better (`reduce_lr_on_plateau`), or up and down within a factor of ten (`greedy`). These two and `constant` "
            "have no warm-up.",
        ),
        Doc("Schedule", works="cosine or linear", llamafactory="lr_scheduler_type"),
    ] = "cosine"  # fmt: skip
    lr_scheduler_kwargs: Annotated[
        dict[str, bool | int | float | str],
        Field(
            description="Further settings of the schedule, as { num_cycles = 2 } (cosine_with_restarts), { power = 2.0 } "
            "(polynomial), { min_lr_rate = 0.1 } (cosine_with_min_lr), { num_decay_steps = 100 } (warmup_stable_decay).",
        ),
        Doc("Schedule settings", llamafactory="lr_scheduler_kwargs", advanced=True),
    ] = {}
    warmup_ratio: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="The share of the run in which the rate rises from zero. The first gradients of a run are its wildest: "
            "without warm-up a rate that would be fine can diverge.",
        ),
        Doc("Warm-up ratio", works="0.03 – 0.1", llamafactory="warmup_ratio"),
    ] = 0.1
    warmup_steps: Annotated[
        int | None,
        Field(
            ge=0,
            le=10_000_000,
            description="Warm-up in updates instead of a share of the run. Set, it overrides warmup_ratio.",
        ),
        Doc(
            "Warm-up steps",
            works="not set, or 20 – 100",
            llamafactory="warmup_steps",
            advanced=True,
        ),
    ] = None
    optim: Annotated[
        Literal[
            "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit",
            "adafactor", "sgd", "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit", "galore_adamw",
            "galore_adamw_8bit", "galore_adafactor", "apollo_adamw",
        ],
        Field(
            description="The optimizer. AdamW, whose weight decay is apart from the gradient, holds two numbers for each weight that "
            "trains: 8 bytes. On CUDA `adamw_torch` is `adamw_torch_fused`: the same update with fewer kernels and less memory. "
            "`adamw_8bit` holds them in 2 bytes (bitsandbytes; embeddings keep 8), `paged_…` moves them to the host's memory when "
            "the GPU's runs out (CUDA only). `adafactor` holds next to nothing and `sgd` nothing (4 bytes with momentum, see optim_args), but "
            "both take other steps; `lion` holds one number (4 bytes or 1) and wants a rate 3 to 10 times lower. `galore` and `apollo` hold "
            "their states for a projection of the gradients, for full fine-tuning, and need the galore-torch or apollo-torch package. "
            "Little gain for LoRA, whose weights are few.",
        ),
        Doc(
            "Optimizer",
            works="adamw_torch",
            llamafactory="optim",
            advanced=True,
            refused=REFUSED,
        ),
    ] = "adamw_torch"  # fmt: skip
    optim_args: Annotated[
        str | None,
        Field(
            description='Further settings of the optimizer as "name=value, name=value": "momentum=0.9" (sgd; dampening, nesterov), '
            '"rank=128, update_proj_gap=200, scale=0.25" (galore, apollo), "rank=1, scale=128, scale_type=tensor" (the smallest apollo). '
            "The others have none.",
        ),
        Doc("Optimizer settings", works="not set", llamafactory="optim_args", advanced=True),
    ] = None
    optim_target_modules: Annotated[
        str | None,
        Field(
            description="The linear layers whose gradients galore and apollo project, separated by commas, as attn,mlp. Not set: all of them but the "
            "output head.",
        ),
        Doc(
            "Projected modules",
            works="not set",
            when=(
                When(
                    "train.optim",
                    ("galore_adamw", "galore_adamw_8bit", "galore_adafactor", "apollo_adamw"),
                ),
            ),
            llamafactory="galore_target",
            advanced=True,
        ),
    ] = None
    offload_optimizer: Annotated[
        bool,
        Field(
            description="Hold the optimizer's numbers in the host's memory and update there: frees 8 bytes of the GPU for each "
            "weight that trains, and takes 12 of the host. The same result; an update costs a trip over the bus and back. For "
            "`adamw_torch`, `adamw_torch_fused` (the faster one here too) and `adafactor`.",
        ),
        Doc("Offload optimizer", works="false", advanced=True),
    ] = False
    weight_decay: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            description="Pulls the weights towards zero a little with every update, apart from the gradient. Up to 0.1 against "
            "overfitting, 0 when the model does not learn enough.",
        ),
        Doc("Weight decay", works="0 – 0.1", llamafactory="weight_decay"),
    ] = 0.01
    adam_beta1: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="How long the optimizer remembers gradients, about 1 / (1 - β1) updates: 10 at 0.9. 0.8 only when a run diverges in spite of everything.",
        ),
        Doc("Adam β1", works="0.9", llamafactory="adam_beta1", advanced=True),
    ] = 0.9
    adam_beta2: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="How long the optimizer remembers the gradients' size, about 1 / (1 - β2) updates: 1000 at 0.999. 0.95 reacts faster, which helps with spikes.",
        ),
        Doc("Adam β2", works="0.95 – 0.999", llamafactory="adam_beta2", advanced=True),
    ] = 0.999
    adam_epsilon: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Keeps the division by the gradients' size from exploding where they are tiny.",
        ),
        Doc("Adam ε", works="1e-8", llamafactory="adam_epsilon", advanced=True),
    ] = 1e-8
    max_grad_norm: Annotated[
        float,
        Field(
            ge=0,
            le=1000,
            description="Gradients longer than this are cut to this length before the update. Lower it when gradients explode; "
            "0 switches clipping off.",
        ),
        Doc("Max gradient norm", works="0.3 – 5, usually 1", llamafactory="max_grad_norm"),
    ] = 1.0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"],
        Field(
            description="The numbers that training computes with. bf16 has the range of fp32 and is right for Ampere and newer; "
            "fp16 needs loss scaling and can overflow; pure_bf16 holds the trained weights and the optimizer in bf16 too and "
            "halves their memory, but small updates get lost in rounding. `auto`: bf16 where the GPU has it, else "
            "fp16, and fp32 on the CPU.",
        ),
        Doc("Precision", works="auto", llamafactory="bf16 / fp16 / pure_bf16"),
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool,
        Field(
            description="Forget activations and compute them again in the backward pass: activations shrink to a fraction, a "
            "step takes 20 – 49 % more computation.",
        ),
        Doc(
            "Gradient checkpointing",
            works="true when memory is short",
            llamafactory="disable_gradient_checkpointing (inverted)",
        ),
    ] = False
    gradient_checkpointing_every: Annotated[
        int,
        Field(
            ge=1,
            le=512,
            description="Checkpoint every n-th layer only: 1 is all of them. With 2, half of the layers keep their activations and "
            "half of the extra computation is saved.",
        ),
        Doc(
            "Checkpoint every n-th",
            works="1, or 2 – 4 when there is room",
            when=CHECKPOINTED,
            advanced=True,
        ),
    ] = 1
    offload_activations: Annotated[
        bool,
        Field(
            description="Move what the backward pass needs to the host's memory and back (with gradient checkpointing, only what is "
            "kept between layers). The same result; slow over a slow bus. On the CPU it changes nothing.",
        ),
        Doc("Offload activations", works="false", advanced=True),
    ] = False
    loss_chunk_tokens: Annotated[
        int | None,
        Field(
            ge=16,
            le=1_048_576,
            description="Compute the loss of so many tokens at a time, so that their scores over the whole vocabulary (12 bytes a token "
            "and entry) never exist all at once. The same loss, one extra matrix product. It helps where the vocabulary is large: "
            "at 150,000 entries the scores of 4096 tokens take 7 GiB. Not set: all at once.",
        ),
        Doc(
            "Loss in chunks (tokens)",
            works="not set; 1024 when the logits dominate",
            advanced=True,
        ),
    ] = None
    logging_steps: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Report the loss every so many updates. The divergence guard sees no more than this.",
        ),
        Doc("Log every", works="1 – 10", llamafactory="logging_steps"),
    ] = 1
    eval_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000_000,
            description="Evaluate every so many updates. Not set: about ten times over the run. It always evaluates at the end.",
        ),
        Doc("Evaluate every", works="about 200 in a long run", llamafactory="eval_steps"),
    ] = None
    save_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000_000,
            description="Save a checkpoint (trained weights and optimizer) every so many updates and at the end, so that a run that is cut "
            "off can go on from it. Not set: only when it is paused. A full training keeps them, a probe's go when it is done. "
            "The finished weights of a full training are in its output folder either way.",
        ),
        Doc("Save every", works="about 200 in a long run", llamafactory="save_steps"),
    ] = None
    save_total_limit: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Keep so many checkpoints and delete older ones: of a full fine-tuning each takes 12 bytes a parameter.",
        ),
        Doc("Keep checkpoints", works="1 – 3", llamafactory="save_total_limit", advanced=True),
    ] = 2
    save_best: Annotated[
        int | None,
        Field(
            ge=1,
            le=1000,
            description="Keep the checkpoints that are best by the metric that the study ranks by, so many of them, and the newest. Each evaluation "
            "then saves one. Not set: the newest save_total_limit stay. Needs validation data.",
        ),
        Doc("Keep the best", works="1 – 3", advanced=True),
    ] = None
    early_stopping_patience: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000,
            description="Stop when the metric that the study ranks by (the evaluation loss of sft) has not improved for so many evaluations. A full training then ends with its best "
            "weights. Needs validation data.",
        ),
        Doc("Early stopping", works="3 – 5", llamafactory="early_stopping_steps"),
    ] = None
    neftune_noise_alpha: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description="Adds noise to the embeddings while training (NEFTune): can make chat answers better.",
        ),
        Doc("NEFTune noise", works="5", llamafactory="neftune_noise_alpha", advanced=True),
    ] = None
    seed: Annotated[
        int,
        Field(
            ge=0,
            le=2**32 - 1,
            description="Decides initial adapters and dropout. The same profile and seed give the same run on the same machine.",
        ),
        Doc("Seed", llamafactory="seed", advanced=True),
    ] = 42
    data_seed: Annotated[
        int,
        Field(
            ge=0,
            le=2**32 - 1,
            description="Decides the order of the data and what is set aside for evaluation. All trials of a study share it.",
        ),
        Doc("Data seed", llamafactory="data_seed", advanced=True),
    ] = 42
    order_seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=2**32 - 1,
            description="Decides the order of the data alone, and leaves what is set aside for evaluation as it is. Not set: data_seed decides "
            "that too.",
        ),
        Doc("Seed of the order", advanced=True),
    ] = None
