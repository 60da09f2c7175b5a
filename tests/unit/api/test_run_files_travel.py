"""Whatever run file is accepted can be ordered, shown and reported on: no document breaks a stream later."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import spec
from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import Progress
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare, Run
from orchestrator.errors import InvalidSpec
from orchestrator.protocol.convert import RunView, from_proto, run_detail, to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from tests.builders import changed, queued_run

# Mostly what people write; now and then the characters and numbers at which formats differ.
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.text(max_size=4)
_odd = st.text(st.sampled_from("a\0\ud800\udfff$\N{ROCKET}"), max_size=3)
_keys = st.sampled_from(["$int", "$$int", "a", "zero_optimization"]) | _text
_numbers = st.integers() | st.integers(2**53 - 2, 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _text | _odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=10,
)
_counts = st.integers(1, 100) | st.integers(2**31 - 3, 2**31)
_nested = st.integers(0, 40).map(lambda depth: json.loads('{"$int":' * depth + "1" + "}" * depth))
_shared: dict[str, st.SearchStrategy[Any]] = {
    "env": st.dictionaries(st.sampled_from(["A", "B_1", "NCCL_DEBUG"]), _text | _odd, max_size=2),
    "storage": st.sampled_from(["/runs", "s3://bucket/é", "/run\0s"]),
    "resources": st.fixed_dictionaries({"memory": st.integers(2**26, 2**60)}),
    "retry": st.fixed_dictionaries({"max_restarts": st.integers(0, 10_000)}),
    "checkpoint": st.fixed_dictionaries({"every_steps": _counts}),
    "max_duration": st.floats(min_value=1e-9, max_value=3e8),
    "max_cost": st.sampled_from(["20 USD", "0.1 EUR", "9" * 300 + " USD"]),
    "environment": st.fixed_dictionaries({"requirements": st.just(["einops==0.8.2"]) | st.lists(_text, max_size=2)}),
}
_recipes = st.fixed_dictionaries(
    {
        "name": st.just("a"),
        "recipe": st.sampled_from(["digits_cnn", "text_transformer"]),
        "train": st.fixed_dictionaries({"epochs": _counts}, optional={"steps": _counts, "global_batch": _counts}),
    },
    optional={**_shared, "deepspeed": st.dictionaries(_keys, _json | _nested, max_size=3)},
)
_scripts = st.fixed_dictionaries(
    {"name": st.just("a"), "script": st.sampled_from(["train.py", "dir/é.py"])},
    optional={**_shared, "args": st.lists(_text | _odd, max_size=3)},
)


def placed(document: dict[str, Any]) -> Run:
    run = queued_run(spec=document)
    return changed(lifecycle.place(run, "local", (NodeShare("node-a", "alpha", "10.0.0.1", 1),), 1010.0))


@settings(max_examples=150, deadline=None)
@given(_recipes | _scripts)
def test_an_accepted_run_file_travels_to_its_cluster_and_to_people(written: dict[str, Any]) -> None:
    try:
        parsed = spec.parse(json.dumps(written))
    except InvalidSpec as refusal:
        str(refusal).encode()  # it is told to somebody, too
        return
    document = spec.dump(parsed)
    run = placed(document)
    order = lifecycle.order(run, checkpoint_root="/runs", budgets=spec.budgets(parsed), secrets={}, remaining_s=None)
    assert order is not None
    desired = pb.ServerMessage(desired=pb.Desired(attempts=[to_proto(order, pb.AttemptOrder)]))
    (received,) = pb.ServerMessage.FromString(desired.SerializeToString()).desired.attempts
    assert from_proto(received, AttemptOrder) == order
    assert spec.load(from_proto(received, AttemptOrder).spec) == parsed

    shown = pb.Run.FromString(run_detail(run, ledger=Ledger()).SerializeToString())
    assert from_proto(shown, RunView).spec == document

    train = parsed.train
    progress = Progress(run.id, 1, 1, "training", 1.0, total_epochs=train.epochs, total_steps=train.steps)
    furthest = dataclasses.replace(progress, samples=(train.steps or 1) * train.global_batch)
    assert from_proto(to_proto(furthest, pb.Progress), Progress) == furthest
