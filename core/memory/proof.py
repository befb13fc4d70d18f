"""What a client and the dry run's process say to each other: one JSON object a line, a request and its reply."""

from typing import Any

import msgspec

from core.memory.forecast import Forecast, Lengths, Target


class MeasureLengths(msgspec.Struct, frozen=True, tag="lengths"):
    """Measure the longest rows of a profile's data, in tokens."""

    profile: dict[str, Any]
    """As Profile.to_document has it; its paths are absolute."""


class Prove(msgspec.Struct, frozen=True, tag="prove"):
    """Simulate the run of a profile."""

    profile: dict[str, Any]
    target: Target
    lengths: Lengths


Request = MeasureLengths | Prove


class Measured(msgspec.Struct, frozen=True, tag="lengths"):
    """The reply to MeasureLengths."""

    lengths: Lengths


class Proven(msgspec.Struct, frozen=True, tag="forecast"):
    """The reply to Prove."""

    forecast: Forecast


class Refused(msgspec.Struct, frozen=True, tag="error"):
    """The reply to a request that cannot be met."""

    reason: str
    """A sentence for a person."""


Reply = Measured | Proven | Refused


def encode(message: Request | Reply) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises msgspec.DecodeError or ValidationError for what is no request."""
    request: Request = msgspec.json.decode(line, type=Request)
    return request


def decode_reply(line: bytes) -> Reply:
    """Raises msgspec.DecodeError or ValidationError for what is no reply."""
    reply: Reply = msgspec.json.decode(line, type=Reply)
    return reply
