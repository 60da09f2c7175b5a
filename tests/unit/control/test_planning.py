"""The preflight in the server: what submit refuses and stores, and what plan learns from earlier runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.control.commands import SubmitCommand
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.money import Prices
from orchestrator.core.records import RunFilter
from orchestrator.core.runs import Run
from orchestrator.errors import InvalidSpec
from orchestrator.planning.plan import Plan
from tests.builders import attempt_ended, node
from tests.unit.control.plane import Plane, document, observation

pytestmark = pytest.mark.anyio

LARGE: dict[str, Any] = {
    "recipe": "text_transformer",
    "model": {"layers": 22, "width": 2048, "heads": 32},
    "train": {"steps": 10, "global_batch": 8, "micro_batch": 1},
    "resources": {"workers": 4, "memory": "10GiB"},
}


def planned(plane: Plane, name: str = "digits", **keys: Any) -> Plan:
    return plane.commands.plan("default", json.dumps(document(name, **keys)))


async def finished(plane: Plane, name: str = "digits", *, training_s: float = 8.0, **keys: Any) -> Run:
    """A run that trained for so many worker-seconds, ten steps long."""
    session = await plane.attach()
    run = plane.submit(name, **keys)
    plane.loop.one_pass()
    ledger = Ledger({TimeClass.TRAINING: int(training_s * 1e9), TimeClass.STARTING: int(training_s * 1e9)})
    await session.observe([observation(run, attempt_ended("succeeded", ledger=ledger), seq=1)])
    return plane.run(run)


async def test_what_does_not_fit_is_refused_at_submit_with_what_would():
    plane = Plane()
    with pytest.raises(InvalidSpec) as refused:
        plane.submit("large", **LARGE)
    (problem,) = refused.value.problems
    assert problem.path == "resources.memory"
    assert "ZeRO 3 would, at " in problem.message
    assert planned(plane, "large", **LARGE).problems == (problem,)  # the same words
    assert not plane.store.runs(RunFilter("*")).runs


async def test_auto_is_stored_resolved_with_the_reason_in_its_history():
    plane = Plane()
    run = plane.submit("large", **LARGE, parallelism="auto")
    degrees = {"tensor": 4, "pipeline": 1, "sequence": 1, "expert": 1}
    assert run.spec["parallelism"] == {"zero": 0, **degrees, "offload": None}
    submitted, chosen = plane.store.events(run.id)
    assert (submitted.kind, chosen.kind, chosen.seq) == ("submitted", "planned", 2)
    assert chosen.message == planned(plane, "large", **LARGE, parallelism="auto").reason
    assert chosen.message.startswith("parallelism auto: ZeRO 0, tensor 4 (")


async def test_auto_is_chosen_for_the_clusters_of_the_moment():
    plane = Plane()
    train = {"steps": 10, "global_batch": 256, "micro_batch": 16}
    keys = {**LARGE, "train": train, "resources": {"workers": 4}, "parallelism": "auto"}
    anywhere = plane.submit("before", **keys)
    await plane.attach((node("a", cpu=4, memory=60 * 2**30),))
    there = plane.submit("after", **keys)
    assert anywhere.spec["parallelism"]["tensor"] == 1
    assert there.spec["parallelism"]["tensor"] == 2


async def test_auto_is_refused_where_no_layout_fits_the_clusters():
    plane = Plane()
    await plane.attach((node("a", cpu=4, memory=12 * 2**30),))
    with pytest.raises(InvalidSpec, match=r"no layout of 4 workers fits: the smallest is ZeRO 0, tensor 4"):
        plane.submit("large", **{**LARGE, "resources": {"workers": 4}, "parallelism": "auto"})


async def test_a_warning_of_the_planner_stays_with_the_run():
    plane = Plane()
    run = plane.submit("faces", data={"source": "/data/faces.npz"})
    (warning,) = [each.message for each in plane.store.events(run.id) if each.kind == "planned"]
    assert warning.startswith("nothing is known of /data/faces.npz")
    assert warning in planned(plane, "faces", data={"source": "/data/faces.npz"}).warnings


async def test_a_repeated_submission_is_answered_though_the_cluster_has_become_too_small():
    plane = Plane()
    keys = {**LARGE, "resources": {"workers": 4}}
    first = plane.submit("large", key="k1", **keys)
    await plane.attach((node("a", cpu=4, memory=2**33),))
    with pytest.raises(InvalidSpec, match="does not fit"):
        plane.submit("large", **keys)
    assert plane.submit("large", key="k1", **keys).id == first.id


async def test_a_plan_expects_what_runs_of_the_same_recipe_took():
    plane = Plane(prices=Prices(cpu_hour=3.6))
    run = await finished(plane)
    other = await finished(plane, "other-name", training_s=12.0)
    found = planned(plane).outlook
    assert found is not None
    assert found.based_on == (run.id, other.id)
    assert found.step_s == pytest.approx((8 + 12) / 2 / 2 / 10)
    assert found.steps == -(-1258 // 128)
    assert found.cost is not None
    assert found.cost.amount == pytest.approx(found.duration_s * 2 * 0.001)


async def test_other_projects_and_recipes_are_no_evidence():
    plane = Plane()
    await finished(plane)
    assert planned(plane, recipe="text_transformer").outlook is None
    text = json.dumps(document("digits"))
    assert plane.commands.plan("another", text).outlook is None


async def test_a_limit_that_would_end_the_run_is_warned_of():
    plane = Plane(prices=Prices(cpu_hour=3.6))
    await finished(plane, training_s=8000.0)
    warnings = planned(plane, max_duration="60s", max_cost="1 USD").warnings
    assert [each.split(":")[0] for each in warnings] == ["max_duration", "max_cost"]


async def test_runs_of_a_batch_are_alike_in_their_layout_and_keep_their_own_words():
    plane = Plane()
    texts = [json.dumps(document(name, **LARGE, parallelism="auto")) for name in ("first", "second")]
    texts.append(json.dumps(document("third", parallelism={"zero": 2})))
    answers = plane.commands.submit([SubmitCommand("default", text, "ada") for text in texts])
    assert [each.run.name for each in answers] == ["first", "second", "third"]
    assert [each.run.spec["name"] for each in answers] == ["first", "second", "third"]
    assert [each.run.spec["parallelism"]["tensor"] for each in answers] == [4, 4, 1]
    assert [len(plane.store.events(each.run.id)) for each in answers] == [2, 2, 1]


async def test_auto_is_chosen_by_what_earlier_runs_took_at_submit_as_well():
    plane = Plane()
    slow = await finished(plane, "slow", training_s=90.0, parallelism={"zero": 0})
    fast = await finished(plane, "fast", training_s=10.0, parallelism={"zero": 2})
    run = plane.submit("chosen", parallelism="auto")
    assert run.spec["parallelism"]["zero"] == 2
    chosen = plane.store.events(run.id)[1]
    assert f"that it took in {fast.id}" in chosen.message
    assert slow.id not in chosen.message
    assert planned(plane, "chosen", parallelism="auto").reason == chosen.message


async def test_a_config_file_on_the_servers_machine_tells_the_model(tmp_path: Path):
    plane = Plane()
    config = {"model_type": "gpt2", "vocab_size": 131, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}
    keys = {"recipe": "hf_causal_lm", "model": {"config": str(tmp_path), "context": 65}}
    assert planned(plane, **keys).memory is None
    assert plane.submit("unknown", **keys).spec["recipe"] == "hf_causal_lm"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidSpec, match=r"model\.context: must be at most 64, the model's longest"):
        plane.submit("long", **keys)
    keys["model"] = {"config": str(tmp_path), "context": 48}
    assert planned(plane, **keys).memory is not None
