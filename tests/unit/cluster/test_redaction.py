"""No value of a secret leaves the host, whatever a rank puts it into."""

from __future__ import annotations

import json

import pytest

from orchestrator.cluster.rank_output import Redactor, redact_message
from trainers import contract

SECRET = 'hf_s3cret\\with"odd\tparts'
REDACT = Redactor((SECRET, "first line\nsecond line"))


@pytest.mark.parametrize(
    "message",
    [
        contract.Failed(1, f"ValueError: {SECRET}", traceback=f'raise ValueError("{SECRET}")'),
        contract.Failed(1, f"KeyError: {SECRET!r}", traceback="second line"),
        contract.Failed(1, json.dumps({"token": SECRET})),
        contract.Restored(0, None, (contract.Skipped("s3://bucket", f"denied for {SECRET}"),)),
        contract.Done(1, {SECRET: 1.0}, None, SECRET),
        contract.EpochEnded(0, 1, {f"loss of {SECRET}": 1.0}),
    ],
)
def test_no_text_of_a_message_holds_a_secret(message: contract.Message) -> None:
    told = repr(redact_message(message, REDACT))
    assert "s3cret" not in told
    assert "second line" not in told
    assert "***" in told


def test_a_message_without_secrets_stays_as_it_is() -> None:
    for message in (
        contract.Step(step=3, epoch=0, at_ns=5, loss=0.5),
        contract.PhaseChanged("training", 7),
        contract.Restored(2, "/seal", (contract.Skipped("/newer", "torn"),)),
        contract.Sealed("/seal", 2, 10, 0.1, 0.2, {"val_loss": 0.5}, True),
    ):
        assert redact_message(message, REDACT) == message


def test_phases_and_addresses_of_checkpoints_survive_a_secret_that_holds_them() -> None:
    redact = Redactor(("training", "/seals"))
    for message in (contract.PhaseChanged("training", 7), contract.Sealed("/seals/1", 2, 10, 0.1, 0.2)):
        assert redact_message(message, redact) == message
