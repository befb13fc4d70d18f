"""Every parameter of tunedeck, described once: one pydantic model per table of a profile.

A field carries its type, its default and its bounds (pydantic), its explanation (`description`) and a `Doc`: the short
title, the range that works, when the parameter applies and its name in LLaMA-Factory. Validation, the editor's form,
its help, the TOML file, the JSON schema and the `params` command all read these models through `core.catalogue`.

Names are Hugging Face's and LLaMA-Factory's own. Ranges that work come from published runs and from the defaults
of the methods' authors; each explanation says what to expect outside of them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.values import Scalar


@dataclass(frozen=True, slots=True)
class When:
    """A parameter applies only while another one, named `table.key`, has one of `values` (None: is not set)."""

    key: str
    values: tuple[Scalar | None, ...]


@dataclass(frozen=True, slots=True)
class Doc:
    """What the form and the `params` command show beside a parameter's type and bounds."""

    title: str
    works: str = ""
    when: tuple[When, ...] = ()
    llamafactory: str | None = None
    advanced: bool = False


LORA = (When("method.finetuning_type", ("lora",)),)
FREEZE = (When("method.finetuning_type", ("freeze",)),)
QUANTIZED = (When("model.quantization_bit", (4,)),)
CHECKPOINTED = (When("train.gradient_checkpointing", (True,)),)
SEVERAL_GPUS = (When("resources.gpus_per_trial", tuple(range(2, 65))),)


class Table(BaseModel):
    """A table of a profile: unknown keys are errors, types are not guessed, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ProfileTable(Table):
    """Who this profile is."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=80,
            pattern=r"^[^/\x00-\x1f]+$",
            description="The name that studies and saved files carry.",
        ),
        Doc("Name"),
    ] = "untitled"
    notes: Annotated[
        str, Field(description="Anything worth remembering about this profile."), Doc("Notes")
    ] = ""


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
    template: Annotated[
        Literal[
            "auto", "chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "qwen", "vicuna", "zephyr",
            "alpaca", "plain",
        ],
        Field(
            description="How a conversation becomes text. `auto` takes the tokenizer's own chat template, and `chatml` "
            "where it has none. A model that was tuned with one template and is used with another answers badly, so "
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


class MethodTable(Table):
    """What is trained, and which weights of the model move."""

    stage: Annotated[
        Literal["sft"],
        Field(
            description="The kind of training. `sft` is supervised fine-tuning: learn to give the answers of the data set."
        ),
        Doc("Stage", llamafactory="stage"),
    ] = "sft"
    finetuning_type: Annotated[
        Literal["lora", "full", "freeze"],
        Field(
            description="Which weights move. `lora` trains small low-rank adapters beside frozen weights; `full` trains all "
            "weights and needs about 16 bytes a parameter (weights, gradients and AdamW's two states, 4 bytes each) and "
            "activations; `freeze` trains only some layers, by default the last two. QLoRA is `lora` with quantization_bit = 4."
        ),
        Doc("Fine-tuning type", works="lora to begin with", llamafactory="finetuning_type"),
    ] = "lora"
    lora_rank: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="The rank of the adapters: how much they can change. Published sweeps show that it matters little "
            "next to the learning rate; memory grows with it. When the rank is searched, hold lora_alpha / lora_rank.",
        ),
        Doc("LoRA rank", works="8 – 64", when=LORA, llamafactory="lora_rank"),
    ] = 8
    lora_alpha: Annotated[
        float | None,
        Field(
            gt=0,
            le=65536,
            description="The adapters' output is scaled by lora_alpha / lora_rank. Not set means 2 × lora_rank, so that the "
            "scale stays the same when the rank changes. Larger means that the adapters weigh more, much like a larger rate.",
        ),
        Doc("LoRA alpha", works="2 × rank (not set)", when=LORA, llamafactory="lora_alpha"),
    ] = None
    lora_dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="The share of the adapters' input that is set to zero at random while training: a little of it "
            "works against overfitting on small data.",
        ),
        Doc("LoRA dropout", works="0 – 0.1", when=LORA, llamafactory="lora_dropout"),
    ] = 0.0
    lora_target: Annotated[
        str,
        Field(
            min_length=1,
            description="Which modules get adapters: `all` (every linear layer but the output head) or names separated by "
            "commas, as q_proj,v_proj. All linear layers work better than attention alone at the same size.",
        ),
        Doc("LoRA targets", works="all", when=LORA, llamafactory="lora_target"),
    ] = "all"
    use_rslora: Annotated[
        bool,
        Field(
            description="Scale by lora_alpha / √lora_rank (rank-stabilised LoRA): keeps the step's size even at ranks above 64."
        ),
        Doc(
            "rsLoRA",
            works="true for ranks above 64",
            when=LORA,
            llamafactory="use_rslora",
            advanced=True,
        ),
    ] = False
    use_dora: Annotated[
        bool,
        Field(
            description="Train the size and the direction of each weight apart (DoRA): a little better at low ranks, noticeably slower."
        ),
        Doc("DoRA", works="false", when=LORA, llamafactory="use_dora", advanced=True),
    ] = False
    adapter_precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(
            description="The numbers that adapters are held in, and their gradients and optimizer states with them. `auto`: fp32, but bf16 "
            "with precision = pure_bf16. bf16 halves their memory, which counts at high ranks; small updates get lost in rounding. Not with fp16.",
        ),
        Doc("Adapter precision", works="auto", when=LORA, advanced=True),
    ] = "auto"
    freeze_trainable_layers: Annotated[
        int,
        Field(
            ge=-512,
            le=512,
            description="How many of the last layers train; a negative number means the first ones. The rest is frozen.",
        ),
        Doc("Trainable layers", works="2 – 8", when=FREEZE, llamafactory="freeze_trainable_layers"),
    ] = 2
    freeze_trainable_modules: Annotated[
        str,
        Field(
            min_length=1,
            description="Which modules inside those layers train: `all`, or names separated by commas, as mlp,self_attn.",
        ),
        Doc("Trainable modules", works="all", when=FREEZE, llamafactory="freeze_trainable_modules"),
    ] = "all"
    freeze_extra_modules: Annotated[
        str | None,
        Field(
            description="Modules outside of the layers that train too, separated by commas, as embed_tokens,lm_head."
        ),
        Doc("Extra modules", when=FREEZE, llamafactory="freeze_extra_modules", advanced=True),
    ] = None


class DataTable(Table):
    """What the model learns from."""

    dataset: Annotated[
        list[str] | str,
        Field(
            description="The training data: one file or a list of files (.json, .jsonl, .csv, .parquet). A path that is not "
            "absolute is looked up from the folder of the profile, then from where tunedeck was started. `demo` is the small "
            "instruction set that tunedeck ships.",
        ),
        Doc("Data set", llamafactory="dataset"),
    ]
    eval_dataset: Annotated[
        list[str] | str | None,
        Field(
            description="Files to evaluate on, as for dataset. Not set: val_size is taken off the training data."
        ),
        Doc("Evaluation data", llamafactory="eval_dataset"),
    ] = None
    format: Annotated[
        Literal["auto", "alpaca", "sharegpt", "openai"],
        Field(
            description="How a row is laid out: `alpaca` (instruction, input, output), `sharegpt` (conversations with from and "
            "value) or `openai` (messages with role and content). `auto` looks at the first row.",
        ),
        Doc("Format", works="auto", llamafactory="formatting"),
    ] = "auto"
    cutoff_len: Annotated[
        int,
        Field(
            ge=8,
            le=1_048_576,
            description="Rows longer than this many tokens lose their end, and a row whose answer begins later is left out. Memory "
            "for activations grows in proportion (faster with `eager` attention), so take what your data needs and no more.",
        ),
        Doc("Cut-off length", works="512 – 4096", llamafactory="cutoff_len"),
    ] = 2048
    val_size: Annotated[
        float,
        Field(
            ge=0,
            le=1_000_000,
            description="What is set aside for evaluation: a share below 1, or a number of rows. It does nothing where eval_dataset is "
            "set. Without either, trials can only be ranked by training loss, which does not see overfitting.",
        ),
        Doc("Validation size", works="0.02 – 0.1", llamafactory="val_size"),
    ] = 0.05
    max_samples: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000_000,
            description="Take at most this many rows of each file (evaluation files too), drawn with data_seed. Good for a first look.",
        ),
        Doc("Most samples", works="not set; 1000 to look", llamafactory="max_samples"),
    ] = None
    train_on_prompt: Annotated[
        bool,
        Field(
            description="Count the loss on the prompt as well. False means that only the answers are learnt, which is what "
            "nearly everyone wants.",
        ),
        Doc("Train on prompt", works="false", llamafactory="train_on_prompt"),
    ] = False
    packing: Annotated[
        bool,
        Field(
            description="Join short rows into sequences of at most cutoff_len tokens. Faster on short rows; rows in one sequence can see "
            "each other's text, which rarely hurts. A batch then counts sequences, so that an epoch has fewer updates.",
        ),
        Doc("Packing", works="false", llamafactory="packing"),
    ] = False


class TrainTable(Table):
    """How the weights are moved."""

    learning_rate: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="The length of a step: update = rate × gradient. Too high: the loss shakes, rises, becomes NaN. Too low: "
            "nothing happens for epochs. LoRA bears about ten times the rate of full fine-tuning. When the effective batch "
            "doubles, the rate bears √2 times as much.",
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
            "at all (`constant`, `constant_with_warmup`), in cycles, with 1/√step, or by the evaluation loss: down when it stops "
            "falling (`reduce_lr_on_plateau`), or up and down within a factor of ten (`greedy`). These two and `constant` "
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
            "adafactor",
        ],
        Field(
            description="The optimizer. AdamW, whose weight decay is apart from the gradient, holds two numbers for each weight that "
            "trains: 8 bytes. `adamw_torch_fused` computes the same with fewer kernels and less memory, and is the faster one on "
            "CUDA. `adamw_8bit` holds them in 2 bytes (bitsandbytes; embeddings keep 8), `paged_…` moves them to the host's memory when "
            "the GPU's runs out (CUDA only), `adafactor` holds next to nothing but takes other steps. Little gain for LoRA, whose weights are few.",
        ),
        Doc("Optimizer", works="adamw_torch", llamafactory="optim", advanced=True),
    ] = "adamw_torch"  # fmt: skip
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
    early_stopping_patience: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000,
            description="Stop when the evaluation loss has not improved for so many evaluations. A full training then ends with its best "
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


class MemoryTable(Table):
    """How much memory a trial may take, and what happens when it is not enough."""

    limit_gib: Annotated[
        float | None,
        Field(
            gt=0,
            le=100_000,
            description="A hard cap on a trial's memory in GiB: of each of its GPUs (the CUDA allocator's share) or, on the CPU, of "
            "the process. Share a GPU politely with it, or try out what happens when memory runs out.",
        ),
        Doc("Memory limit (GiB)"),
    ] = None
    on_oom: Annotated[
        Literal["apply", "ask", "skip"],
        Field(
            description="When a trial runs out of memory, or is proven not to fit: `apply` the cheapest fix that leaves the result as it is "
            "and try again, `ask` (show what would fit and wait for your key), or `skip` the trial. What changes the result is never "
            "applied by itself.",
        ),
        Doc("On out of memory", works="apply over night, ask while you watch"),
    ] = "apply"


class ResourcesTable(Table):
    """Which devices a study may use."""

    devices: Annotated[
        Literal["auto", "cpu"] | list[int | str],
        Field(
            description="`auto`: every GPU that is free, the CPU where there is none. `cpu`, or a list of GPUs by number or UUID. What "
            "CUDA_VISIBLE_DEVICES leaves out is never touched.",
        ),
        Doc("Devices", works="auto"),
    ] = "auto"
    gpus_per_trial: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="GPUs of this machine that one trial uses; it waits until so many are free. Each computes its part of every "
            "update: effective batch = per-device batch × accumulation × GPUs. With 1, several trials run side by side on several "
            "GPUs, which finishes a search sooner.",
        ),
        Doc("GPUs per trial", works="1 where a trial fits one GPU", advanced=True),
    ] = 1
    sharding: Annotated[
        Literal["ddp", "zero1", "fsdp"],
        Field(
            description="What each of several GPUs holds. `ddp`: all of it, the fastest and no smaller. `zero1`: its share of the optimizer's "
            "numbers. `fsdp`: its share of weights, gradients and optimizer, which is gathered layer by layer when it is needed "
            "(ZeRO-3): the smallest, and slow over a slow bus. The result is the same."
        ),
        Doc(
            "Sharding",
            works="ddp where it fits, fsdp where it does not",
            when=SEVERAL_GPUS,
            advanced=True,
        ),
    ] = "ddp"
    parallel: Annotated[
        int | None,
        Field(
            ge=1,
            le=256,
            description="The most trials at once. Not set: as many as there are GPUs for, or one on the CPU.",
        ),
        Doc("Trials at once"),
    ] = None


class Range(Table):
    """A range to search: both ends belong to it. `step` makes a grid of it (in units of the value, linear only)."""

    low: Annotated[float, Field(description="The lowest value.")]
    high: Annotated[float, Field(description="The highest value.")]
    scale: Annotated[
        Literal["linear", "log"],
        Field(description="`log` draws each order of magnitude alike: right for learning rates."),
    ] = "linear"
    step: Annotated[float | None, Field(gt=0, description="Only multiples of this, from low.")] = (
        None
    )


class SearchTable(Table):
    """How trials are chosen, how long they run and what ranks them."""

    strategy: Annotated[
        Literal["auto", "grid", "random", "bayesian", "portfolio"],
        Field(
            description="Which settings are tried. `grid`: every combination of lists. `random`: draws from lists and ranges, which finds good "
            "values with fewer trials when there are several parameters. `bayesian`: draws where earlier trials did well (Optuna's TPE). "
            "`portfolio`: a ranked list of settings that are known to be good for this method and size of model. `auto` decides by the "
            "space and the number of trials, and says why.",
        ),
        Doc("Strategy", works="auto"),
    ] = "auto"
    stopping: Annotated[
        Literal["auto", "none", "halving", "asha"],
        Field(
            description="Which trials are ended early because others do better. `halving`: all run to a rung (6 % of the probe at first), "
            "are paused, and the best and those that may still catch up go on from exactly there. `asha`: the same without waiting for the slowest, for many GPUs. `none`: all "
            "run to their end. `auto` decides by the number of trials and GPUs.",
        ),
        Doc("Early stopping", works="auto"),
    ] = "auto"
    trials: Annotated[
        int,
        Field(
            ge=1, le=100_000, description="The most trials. A grid that is smaller ends earlier."
        ),
        Doc("Trials", works="8 – 24"),
    ] = 12
    budget: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="The share of the full training that a trial runs at most. All trials see the same rows in the same order, "
            "whatever their batch: they can be compared. Short probes "
            "prefer learning rates that are a little too high: on near ties the lower rate is ranked first.",
        ),
        Doc("Budget of a trial", works="0.1 – 0.3"),
    ] = 0.2
    budget_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=10**15,
            description="The budget of a trial in tokens trained on (padding left out) in place of a share. For spaces in which trials differ in "
            "how many tokens a row has (cutoff_len, packing).",
        ),
        Doc("Budget in tokens", works="not set", advanced=True),
    ] = None
    rank_by: Annotated[
        str,
        Field(
            min_length=1,
            description="What decides: `eval_loss`, `loss` (the smoothed training loss), `loss_fall` (how fast the training loss falls), or any "
            "other metric that trials log. `auto`: the evaluation loss where there is validation data, else the training loss.",
        ),
        Doc("Rank by", works="auto"),
    ] = "auto"
    rank_direction: Annotated[
        Literal["auto", "min", "max"],
        Field(
            description="Whether a small or a large value of rank_by is good. `auto`: as is usual for that metric."
        ),
        Doc("Direction", works="auto", advanced=True),
    ] = "auto"
    confirm: Annotated[
        int,
        Field(
            ge=0,
            le=10,
            description="So many of the best trials run once more with another seed before a winner is named, and count by their mean. 0: "
            "the first result stands.",
        ),
        Doc("Confirm the best", works="0, or 2 where differences are small"),
    ] = 0
    portfolio: Annotated[
        bool,
        Field(
            description="Begin with settings that are known to be good for this method and size of model, as far as they lie in the space; what "
            "is drawn then follows."
        ),
        Doc("Known-good first", works="true"),
    ] = True
    hold_effective_batch: Annotated[
        bool,
        Field(
            description="Where the batch per device is searched, change the accumulation so that the effective batch stays as the profile has "
            "it (or the batch, where accumulation is searched). Values that do not divide it are left out."
        ),
        Doc("Hold the effective batch", advanced=True),
    ] = False
    hold_lora_ratio: Annotated[
        bool,
        Field(
            description="Where lora_rank is searched and lora_alpha is not, change lora_alpha so that lora_alpha / lora_rank stays: the adapter's "
            "weight, and with it the best learning rate, then hardly depend on the rank."
        ),
        Doc("Hold lora_alpha / lora_rank", works="true", advanced=True),
    ] = True
    scale_rate_with_batch: Annotated[
        bool,
        Field(
            description="Multiply the learning rate by the square root of how many times larger a trial's effective batch is than the profile's, "
            "as Adam bears it."
        ),
        Doc("Scale the rate with √batch", advanced=True),
    ] = False
    first_rung: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Where trials are compared first when they are stopped early: a share of the probe. The next rungs lie twice as far "
            "each, the last at three quarters.",
        ),
        Doc("First rung", works="0.06 – 0.1", advanced=True),
    ] = 0.06
    reduction: Annotated[
        float,
        Field(
            gt=1,
            le=10,
            description="At each rung the best 1/reduction of the trials go on (η), and those that fall so fast that they may still catch up.",
        ),
        Doc("Reduction at a rung", works="3", advanced=True),
    ] = 3.0
    finalists: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="So many trials run to the end of the probe at least: a lone survivor may yet diverge late.",
        ),
        Doc("Finalists", works="2 or more", advanced=True),
    ] = 2
    probe_schedule: Annotated[
        Literal["own", "full"],
        Field(
            description="The learning-rate schedule of a probe. `own`: the whole schedule, warm-up and decay, over the probe's length, which "
            "tells best how good a setting is. `full`: the first part of the full training's, which can then continue from the probe as if "
            "it had never ended."
        ),
        Doc("Schedule of a probe", works="own", advanced=True),
    ] = "own"
    keep_checkpoints: Annotated[
        bool,
        Field(
            description="Keep the last checkpoint of every trial that ran its whole probe, so that the full training can continue from it. Takes "
            "disk: weights that train and optimizer states of each."
        ),
        Doc("Keep the checkpoints", advanced=True),
    ] = False
    fit: Annotated[
        bool,
        Field(
            description="Choose the batch per device of every trial by its memory: the largest that is proven to fit the GPU, with the "
            "effective batch of its settings held by accumulation.",
        ),
        Doc("Fit the batch to the memory", works="true on a shared GPU"),
    ] = False
    seed: Annotated[
        int,
        Field(
            ge=0,
            le=2**32 - 1,
            description="Decides which settings a search draws, and in which order.",
        ),
        Doc("Search seed", advanced=True),
    ] = 0
    guard: Annotated[
        bool,
        Field(description="Stop trials whose loss is no number any more or explodes, and say why."),
        Doc("Divergence guard", works="true", advanced=True),
    ] = True
    space: Annotated[
        dict[str, list[Scalar] | Range],
        Field(
            description='What is searched: a list of values, or { low, high, scale = "log" }, for any parameter of [model], [method], '
            "[data] or [train]. One that has no effect in a combination, as lora_rank in full fine-tuning, is left out of it; so are "
            "combinations that cannot run.",
        ),
        Doc("Search space"),
    ] = {}


class TunedTable(Table):
    """Written into a saved winner: how it was found."""

    study: Annotated[str, Field(description="The study's folder.")] = ""
    trial: Annotated[int, Field(ge=0, description="The trial's number.")] = 0
    metric: Annotated[str, Field(description="What it was ranked by.")] = ""
    value: Annotated[
        float | None, Field(description="The winner's value; a loss is in nats per token.")
    ] = None
    strategy: Annotated[str, Field(description="How the trials were chosen.")] = ""
    stopping: Annotated[str, Field(description="How trials were ended early.")] = ""
    seeds: Annotated[
        int, Field(ge=0, description="How many runs of these settings the value is the mean of.")
    ] = 1
    steps: Annotated[int, Field(ge=0, description="The updates that the trial ran.")] = 0
    trials: Annotated[int, Field(ge=0, description="How many trials were ranked.")] = 0
    runner_up: Annotated[int | None, Field(description="The second-best trial.")] = None
    runner_up_value: Annotated[float | None, Field(description="Its value.")] = None
    peak_memory_gib: Annotated[
        float | None, Field(description="The most memory that the trial held, GiB.")
    ] = None
    device: Annotated[str, Field(description="What it ran on.")] = ""
    precision: Annotated[str, Field(description="What `auto` became on that device.")] = ""
    versions: Annotated[dict[str, str], Field(description="The libraries' versions.")] = {}
    date: Annotated[str, Field(description="When it was saved, ISO 8601.")] = ""


TABLES: dict[str, type[Table]] = {
    "profile": ProfileTable,
    "model": ModelTable,
    "method": MethodTable,
    "data": DataTable,
    "train": TrainTable,
    "memory": MemoryTable,
    "resources": ResourcesTable,
    "search": SearchTable,
    "tuned": TunedTable,
}
"""The tables of a profile in the order in which they are shown and saved."""

SEARCHABLE_TABLES = ("model", "method", "data", "train")
"""Tables whose keys can be searched; a key's name is unique across them."""
