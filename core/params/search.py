"""The table [search]: which settings are tried, and how they are compared."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.table import Doc, Table
from core.values import Scalar


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
