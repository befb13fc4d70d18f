"""The process's answers; tests of the process itself are the prover's."""

import pytest

from core.dryrun import prove as proving
from core.dryrun.main import answer, main
from core.memory.forecast import Lengths
from core.memory.proof import Prove, Proven, Refused, encode

from .conftest import GPU, MakeProfile


def test_a_proof_is_answered(make_profile: MakeProfile) -> None:
    profile = make_profile()
    reply = answer(encode(Prove(profile.to_document(), GPU, Lengths(64, 0))))
    assert isinstance(reply, Proven)
    assert reply.forecast == proving.prove(profile, GPU, Lengths(64, 0))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "this is no request"),
        (b'{"type": "prove"}', "this is no request"),
        (b'{"type": "lengths", "profile": {"modle": {}}}', "modle: is not a table"),
    ],
)
def test_what_is_no_request_is_said(line: bytes, said: str) -> None:
    reply = answer(line)
    assert isinstance(reply, Refused)
    assert said in reply.reason


def test_what_a_model_does_that_cannot_be_simulated_is_said(
    make_profile: MakeProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("odd\nmodel")

    monkeypatch.setattr(proving, "prove", fails)
    reply = answer(encode(Prove(make_profile().to_document(), GPU, Lengths(64, 0))))
    assert reply == Refused("the run cannot be simulated: RuntimeError: odd")


def test_it_takes_no_arguments() -> None:
    assert main(["more"]) == 2
