"""The table [alignment]: how a model learns from preferences (dpo, kto) and from a reward (ppo)."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.table import Doc, Table, When

DPO = (When("method.stage", ("dpo",)),)
KTO = (When("method.stage", ("kto",)),)
PPO = (When("method.stage", ("ppo",)),)
REFERENCED = (When("method.stage", ("dpo", "kto", "ppo")),)
PREFERENCES = (When("method.stage", ("dpo", "kto")),)
SIMPO = (*DPO, When("alignment.pref_loss", ("simpo",)))
SMOOTHED = (*DPO, When("alignment.pref_loss", ("sigmoid",)))


class AlignmentTable(Table):
    """How a model learns from preferences (`dpo`, `kto`) and from a reward (`ppo`)."""

    pref_loss: Annotated[
        Literal["sigmoid", "ipo", "hinge", "orpo", "simpo"],
        Field(
            description="What a preference pair teaches. `sigmoid` is DPO; `ipo` aims at a fixed margin and overfits less on clear-cut pairs; "
            "`hinge` (SLiC) stops at a margin; `orpo` and `simpo` need no reference model: `orpo` adds an odds ratio to the loss on "
            "the chosen answer, `simpo` compares mean log probabilities with a target margin (simpo_gamma).",
        ),
        Doc("Preference loss", works="sigmoid", when=DPO, llamafactory="pref_loss"),
    ] = "sigmoid"
    pref_beta: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="How strongly the policy is held to the reference: small lets it move far, large keeps it close. With `simpo` it scales "
            "the margin and is larger, 2 to 10; with `orpo` it weighs the odds ratio.",
        ),
        Doc(
            "Preference β",
            works="0.01 – 0.5; simpo 2 – 10",
            when=PREFERENCES,
            llamafactory="pref_beta",
        ),
    ] = 0.1
    pref_ftx: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Adds so much of the supervised loss on the chosen answers: keeps their probability from falling along with that of the "
            "rejected ones.",
        ),
        Doc("Supervised share", works="0, or 0.1 – 1", when=DPO, llamafactory="pref_ftx"),
    ] = 0.0
    simpo_gamma: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="The margin that SimPO wants between the chosen and the rejected answer, in the reward's units (already times β).",
        ),
        Doc("SimPO margin γ", works="0.5 – 1.5", when=SIMPO, llamafactory="simpo_gamma"),
    ] = 0.5
    dpo_label_smoothing: Annotated[
        float,
        Field(
            ge=0,
            lt=0.5,
            description="The share of pairs that are taken to be the wrong way round: with noisy labels a little of it keeps the model from being "
            "sure of them (cDPO).",
        ),
        Doc(
            "Label smoothing",
            works="0, or 0.1 for noisy pairs",
            when=SMOOTHED,
            llamafactory="dpo_label_smoothing",
            advanced=True,
        ),
    ] = 0.0
    kto_chosen_weight: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="Weighs the desirable answers. Where they are the fewer ones, raise it so that weight × number is 1 to 1.33 times that of "
            "the undesirable ones.",
        ),
        Doc("Weight of the desirable", works="1", when=KTO, llamafactory="kto_chosen_weight"),
    ] = 1.0
    kto_rejected_weight: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="Weighs the undesirable answers, as kto_chosen_weight does the others.",
        ),
        Doc("Weight of the undesirable", works="1", when=KTO, llamafactory="kto_rejected_weight"),
    ] = 1.0
    ref_model: Annotated[
        str | None,
        Field(
            description="The model that the policy is held to: a folder or a hub name. Not set: the model as it is before training, which with "
            "LoRA takes no memory (the adapters are switched off), with freeze a second copy of the layers that train (of all under fsdp), and with full of all.",
        ),
        Doc(
            "Reference model",
            works="not set",
            when=REFERENCED,
            llamafactory="ref_model",
            advanced=True,
        ),
    ] = None
    reward_model: Annotated[
        str | None,
        Field(
            description="What scores the answers in PPO: the folder that a run of stage rm has saved (its `output`), merged or as an adapter, or a "
            "model with one score. In a recipe `step:NAME` means the result of that step.",
        ),
        Doc("Reward model", when=PPO, llamafactory="reward_model"),
    ] = None
    ppo_epochs: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="How often PPO goes over the same answers before it draws new ones. More learns more from each, and drifts off what drew them.",
        ),
        Doc("PPO epochs", works="2 – 4", when=PPO, llamafactory="ppo_epochs"),
    ] = 4
    ppo_buffer_size: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="How many effective batches of answers are drawn at once, to be gone over in batches. 1 is closest to on-policy.",
        ),
        Doc("PPO buffer", works="1", when=PPO, llamafactory="ppo_buffer_size", advanced=True),
    ] = 1
    ppo_target: Annotated[
        float,
        Field(
            gt=0,
            le=1000,
            description="The KL divergence from the reference that PPO aims at, in nats an answer: the weight of the KL penalty rises above it and "
            "falls below it.",
        ),
        Doc("Target KL", works="3 – 10", when=PPO, llamafactory="ppo_target"),
    ] = 6.0
    ppo_kl_coef: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="The weight of the KL penalty to begin with. Too small, and the policy finds what fools the reward model; too large, and it "
            "does not move. 0 switches KL control off.",
        ),
        Doc("KL weight", works="0.05 – 0.2", when=PPO),
    ] = 0.2
    ppo_clip: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="An update gains nothing from moving the probability of a token by more than this share: PPO's ε.",
        ),
        Doc("Clip range", works="0.1 – 0.2", when=PPO, advanced=True),
    ] = 0.2
    ppo_value_coef: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="The weight of the value head's loss beside the policy's.",
        ),
        Doc("Value loss weight", works="0.1", when=PPO, advanced=True),
    ] = 0.1
    ppo_gamma: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="What a reward one token later is worth. Answers are scored at their end, so that 1 is right for nearly everyone.",
        ),
        Doc("Discount γ", works="1", when=PPO, advanced=True),
    ] = 1.0
    ppo_lambda: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="How far advantages look ahead before they trust the value head (GAE's λ): less is steadier and more biased.",
        ),
        Doc("GAE λ", works="0.95", when=PPO, advanced=True),
    ] = 0.95
    ppo_score_norm: Annotated[
        bool,
        Field(
            description="Divide the scores by their running deviation, so that the reward model's scale does not matter."
        ),
        Doc(
            "Normalise scores",
            works="true where scores are large",
            when=PPO,
            llamafactory="ppo_score_norm",
            advanced=True,
        ),
    ] = False
    ppo_whiten_rewards: Annotated[
        bool,
        Field(
            description="Bring the rewards of a batch to deviation 1 before advantages are computed."
        ),
        Doc(
            "Whiten rewards",
            works="false",
            when=PPO,
            llamafactory="ppo_whiten_rewards",
            advanced=True,
        ),
    ] = False
