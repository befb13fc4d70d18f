"""The tables [memory] and [resources]: what a study may take of the machine."""

from typing import Annotated, Literal

from pydantic import Field

from core.params.table import SEVERAL_GPUS, Doc, Table


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
            "update: effective batch = per-device batch × accumulation × GPUs. Every stage but ppo can. With 1, several trials run "
            "side by side on several GPUs, which finishes a search sooner.",
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
