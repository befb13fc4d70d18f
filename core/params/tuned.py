"""The table [tuned]: how a saved winner was found."""

from typing import Annotated

from pydantic import Field

from core.params.table import Table


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
