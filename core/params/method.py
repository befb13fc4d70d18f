"""The table [method]: what is trained, and which weights move."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.table import FREEZE, LORA, Doc, Table, When


def default_alpha(rank: int) -> float:
    """lora_alpha where it is not set."""
    return 2.0 * rank


class MethodTable(Table):
    """What is trained, and which weights of the model move."""

    stage: Annotated[
        Literal["pt", "sft", "rm", "dpo", "kto", "ppo"],
        Field(
            description="The kind of training. `pt`: go on pretraining, on plain text. `sft`: supervised fine-tuning, learn to give the answers "
            "of the data set. `rm`: a reward model, which learns to score the better of two answers higher. `dpo`: learn from such pairs "
            "directly. `kto`: learn from single answers that are marked good or bad. `ppo`: draw answers, have a reward model score them, "
            "and learn from that."
        ),
        Doc("Stage", works="sft to begin with", llamafactory="stage"),
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
    loraplus_lr_ratio: Annotated[
        float | None,
        Field(
            ge=1,
            le=1000,
            description="Train the adapters' B matrices at so many times the learning rate (LoRA+): they learn too slowly at the rate that suits "
            "the A matrices. Not set: the same rate for both.",
        ),
        Doc(
            "LoRA+ ratio",
            works="not set, or 4 – 16",
            when=LORA,
            llamafactory="loraplus_lr_ratio",
            advanced=True,
        ),
    ] = None
    pissa_init: Annotated[
        bool,
        Field(
            description="Begin with the largest singular values of each weight in the adapters, and the rest in the frozen weights (PiSSA), instead "
            "of with adapters that do nothing: learns faster at first. Takes a while to load."
        ),
        Doc("PiSSA", works="false", when=LORA, llamafactory="pissa_init", advanced=True),
    ] = False
    pissa_iter: Annotated[
        int,
        Field(
            ge=-1,
            le=1000,
            description="Rounds of the fast singular value decomposition of PiSSA; -1 is the exact one, which takes minutes for a large model.",
        ),
        Doc(
            "PiSSA rounds",
            works="16",
            when=(*LORA, When("method.pissa_init", (True,))),
            llamafactory="pissa_iter",
            advanced=True,
        ),
    ] = 16
    additional_target: Annotated[
        str | None,
        Field(
            description="Modules that train whole beside the adapters and are saved with them, separated by commas, as embed_tokens,lm_head: for new "
            "tokens or another language. They cost memory as in full fine-tuning."
        ),
        Doc("Modules trained whole", when=LORA, llamafactory="additional_target", advanced=True),
    ] = None
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
