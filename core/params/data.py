"""The table [data]: what the model learns from."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.table import Doc, Table, When

ANSWERS = (When("method.stage", ("sft",)),)
CHATS = (When("method.stage", ("sft", "rm", "dpo", "kto", "ppo")),)
PACKED = (When("method.stage", ("pt", "sft")),)


class DataTable(Table):
    """What the model learns from."""

    dataset: Annotated[
        list[str] | str,
        Field(
            description="The training data: a file or a name in dataset_info.json, or a list of them (.json, .jsonl, .csv, .parquet, "
            ".txt). A path that is not absolute is looked up from the folder of the profile, then from where tunedeck was started. "
            "`demo` is the small instruction set that tunedeck ships; `demo-text`, `demo-pairs` and `demo-tags` are its kin for the other stages.",
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
    dataset_dir: Annotated[
        str | None,
        Field(
            description="The folder of dataset_info.json, which says by name where data sets lie and what their columns mean, as LLaMA-Factory "
            "has it. Not set: the folder `data` beside the profile or where tunedeck was started, where there is one.",
        ),
        Doc("Folder of data sets", works="not set", llamafactory="dataset_dir", advanced=True),
    ] = None
    mix_strategy: Annotated[
        Literal["concat", "interleave_under", "interleave_over"],
        Field(
            description="How several data sets become one. `concat`: all rows of all. `interleave_under`: drawn by interleave_probs until the first "
            "one is used up; `interleave_over`: until the last one is, the others beginning again.",
        ),
        Doc("Mixing", works="concat", llamafactory="mix_strategy", advanced=True),
    ] = "concat"
    interleave_probs: Annotated[
        list[float] | None,
        Field(
            description="How often a row of each data set is drawn, in the order of dataset: [0.7, 0.3]. They count in proportion. Not set: all alike.",
        ),
        Doc(
            "Mixing weights",
            when=(When("data.mix_strategy", ("interleave_under", "interleave_over")),),
            llamafactory="interleave_probs",
            advanced=True,
        ),
    ] = None
    format: Annotated[
        Literal["auto", "alpaca", "sharegpt", "openai", "text"],
        Field(
            description="How a row is laid out: `alpaca` (instruction, input, output), `sharegpt` (conversations with from and "
            "value), `openai` (messages with role and content) or `text` (text alone, for pretraining). The same layouts carry pairs "
            "(chosen, rejected) and tags (kto_tag). `auto` looks at the first row.",
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
        Doc("Train on prompt", works="false", when=ANSWERS, llamafactory="train_on_prompt"),
    ] = False
    mask_history: Annotated[
        bool,
        Field(
            description="Learn only the last answer of a conversation, and take the earlier ones as given."
        ),
        Doc(
            "Learn the last answer only",
            works="false",
            when=ANSWERS,
            llamafactory="mask_history",
            advanced=True,
        ),
    ] = False
    default_system: Annotated[
        str | None,
        Field(
            description="The system text of rows that have none of their own. Not set: what the template does without one."
        ),
        Doc(
            "Default system text",
            works="not set",
            when=CHATS,
            llamafactory="default_system",
            advanced=True,
        ),
    ] = None
    packing: Annotated[
        bool,
        Field(
            description="Join short rows into sequences of at most cutoff_len tokens: no padding, so that rows of mixed length train up to "
            "several times as fast. A batch then counts sequences, so that an epoch has fewer updates. Pretraining always packs.",
        ),
        Doc("Packing", works="true for short rows", when=ANSWERS, llamafactory="packing"),
    ] = False
    neat_packing: Annotated[
        bool,
        Field(
            description="Rows in one packed sequence do not see each other: the result is that of rows apart. Without, a row may attend to those "
            "before it, which rarely hurts and is what attention kernels without masks need.",
        ),
        Doc(
            "Packed rows apart",
            works="true",
            when=PACKED,
            llamafactory="neat_packing",
            advanced=True,
        ),
    ] = True
    group_by_length: Annotated[
        bool,
        Field(
            description="Put rows of about the same length into one batch, so that little is padded. The order stays random but for that; the "
            "loss curve shakes a little more.",
        ),
        Doc(
            "Group by length",
            works="true for mixed lengths",
            llamafactory="group_by_length",
            advanced=True,
        ),
    ] = False
    streaming: Annotated[
        bool,
        Field(
            description="Read rows as they are needed instead of all at the start: for data that fits neither memory nor disk a second time. Needs "
            "max_steps, as the number of rows is not known, and eval_dataset to evaluate on, or a val_size in rows.",
        ),
        Doc("Streaming", works="false", llamafactory="streaming", advanced=True),
    ] = False
    buffer_size: Annotated[
        int,
        Field(
            ge=1,
            le=100_000_000,
            description="Rows that are held while streaming, from which the next one is drawn: more is better shuffled and takes memory.",
        ),
        Doc(
            "Shuffle buffer",
            works="16384",
            when=(When("data.streaming", (True,)),),
            llamafactory="buffer_size",
            advanced=True,
        ),
    ] = 16384
