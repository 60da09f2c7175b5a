"""What a finished run leaves: which weights are its result, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainers.checkpoint import Checkpoints
from trainers.contract import FACTS_BYTES, Done
from trainers.exchange import Exchange
from trainers.loop import Loop


@dataclass(frozen=True)
class Chosen:
    """The weights that are tested and kept: whose checkpoint they are, and what was measured of them when it was sealed."""

    checkpoint: str | None
    metrics: Mapping[str, float]
    note: str | None = None  # why they are not the best epoch's


def result(
    loop: Loop,
    tested: Mapping[str, float],
    profile: Mapping[str, Any] | None,
    chosen: Chosen,
    proof: Mapping[str, Any] | None,
) -> Done:
    """What rank 0 tells of a finished run."""
    facts, left_out = facts_of(profile, loop.found, proof)
    notes = "; ".join(each for each in (chosen.note, *_told(loop.found), left_out) if each) or None
    return Done(loop.step, {**chosen.metrics, **tested}, chosen.checkpoint, loop.judgement.stop_reason, notes, facts)


def facts_of(
    profile: Mapping[str, Any] | None, found: Mapping[str, Any], proof: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str | None]:
    """What is kept with the model version: what `auto` found, the range test's curve among it, the comparison with the
    version that serves, and the profile of its data and predictions. With what is said when a message cannot carry one."""
    facts: dict[str, Any] = {"automatic": dict(found)} if found else {}
    left_out = []
    for name, words, value in (
        ("proof", "the comparison with the champion is not kept", proof),
        ("profile", "the profile of its data is in its checkpoint alone", profile),
    ):
        if value is None:
            continue
        if name == "profile" and len(json.dumps({**facts, name: value})) > FACTS_BYTES:
            value = {key: each for key, each in value.items() if key != "sample"}  # summaries before rows
        if (size := len(json.dumps({**facts, name: value}))) <= FACTS_BYTES:
            facts[name] = value
        else:
            left_out.append(f"{words}: {size} bytes of JSON, more than {FACTS_BYTES}")
    return facts, "; ".join(left_out) or None


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    if "micro_batch" in found:
        yield f"micro_batch auto was {found['micro_batch']}"
    if "range_test" in found:
        yield f"lr auto was {found['range_test']['chosen']:g}"


def take_best(loop: Loop, checkpoints: Checkpoints, exchange: Exchange) -> Chosen:
    """Collective. Put the best epoch's weights into the engine.

    The last weights, which are sealed too, are the result where no epoch was judged, and where the best seal was damaged
    since and cannot come back.
    """
    judgement = loop.judgement
    best, last = exchange.decided(lambda: (judgement.best_checkpoint, loop.sealed_checkpoint))  # only rank 0 knows
    begun = loop.settings.init_from
    if best is None and begun is not None and begun.resume and begun.checkpoint == last:
        return Chosen(last, loop.metrics, "nothing was left to train: measured are the weights that it began with")
    if best is None:
        what = "was never a finite number" if judgement.metric in loop.metrics else "was not measured"
        return Chosen(last, loop.metrics, f"{judgement.metric} {what}: kept are the last weights")
    if judgement.best_step == loop.step:
        return Chosen(best, loop.metrics)
    loaded = checkpoints.load_weights(loop.engine, best)
    if loaded.problem is None:
        return Chosen(best, loaded.metrics)
    damaged = f"the best checkpoint {best} is damaged ({loaded.problem})"
    return Chosen(last, loop.metrics, f"{damaged}: tested and kept are the last weights, {last}")
