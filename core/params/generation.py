"""The table [generation]: how answers are sampled, by PPO while it trains, and by chat and evaluation after training."""

from typing import Annotated

from pydantic import Field

from core.params.table import Doc, Table


class GenerationTable(Table):
    """How answers are sampled: by PPO while it trains, by `chat` and `eval` afterwards."""

    max_new_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=1_048_576,
            description="The most tokens of an answer. In PPO every update waits for the longest answer, and memory grows with it: take "
            "what your answers need and no more.",
        ),
        Doc("Most new tokens", works="64 – 512 for PPO", llamafactory="max_new_tokens"),
    ] = 256
    temperature: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="Divides the scores before a token is drawn: below 1 the likely ones become likelier. PPO learns from answers "
            "of the policy as it is, which is 1. Chat may go lower.",
        ),
        Doc("Temperature", works="1 for PPO, 0.7 to chat", llamafactory="temperature"),
    ] = 1.0
    top_p: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Draw only from the likeliest tokens that together have this probability. 1 leaves none out, which PPO needs: its "
            "probabilities are of all tokens.",
        ),
        Doc("Top p", works="1 for PPO, 0.9 to chat", llamafactory="top_p"),
    ] = 1.0
    top_k: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="Draw only from so many of the likeliest tokens. 0 leaves none out.",
        ),
        Doc("Top k", works="0", llamafactory="top_k"),
    ] = 0
    repetition_penalty: Annotated[
        float,
        Field(
            ge=1,
            le=10,
            description="Divides the scores of tokens that the text has already. 1 does nothing; used by chat and evaluation only, as a "
            "policy that is to learn must be drawn from as it is.",
        ),
        Doc(
            "Repetition penalty", works="1 – 1.1", llamafactory="repetition_penalty", advanced=True
        ),
    ] = 1.0
