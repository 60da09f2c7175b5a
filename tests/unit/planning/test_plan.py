"""The whole preflight: from a run file and clusters to problems, warnings, and what a rank will hold."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.planning.memory import GIB
from orchestrator.planning.outlook import Past
from orchestrator.planning.plan import Plan, looked_at, plan, review
from orchestrator.spec import dump, load
from tests.builders import node
from trainers.catalogue import RECIPES


def spec(**changes: Any) -> Any:
    document = {"name": "a", "recipe": "digits_cnn", "train": {"epochs": 1}, "resources": {"workers": 2}}
    return load({**document, **changes})


def large(**changes: Any) -> Any:
    """A transformer of 1.1 billion parameters."""
    model = {"layers": 22, "width": 2048, "heads": 32, "context": 64}
    train = {"steps": 10, "global_batch": 8, "micro_batch": 1}
    return spec(**{"recipe": "text_transformer", "model": model, "train": train, **changes})


def cluster(name: str = "local", **changes: Any) -> ClusterView:
    values: dict[str, Any] = {"project": "*", "connected": True, "draining": False, "nodes": (node(memory=2**34),)}
    return ClusterView(name, **{**values, **changes})


def planned(run: Any, *clusters: ClusterView) -> Plan:
    return plan(run, clusters)


def test_a_small_run_works_and_all_is_told() -> None:
    found = planned(spec(), cluster())
    assert found.works
    assert found.problems == ()
    assert found.warnings == ()
    assert found.layout == "ZeRO 0"
    assert str(found.batch) == "32 = 16 x 1 x 2"
    assert found.model is not None
    assert found.model.words == f"{found.model.elements:,} parameters"
    assert found.memory is not None
    assert found.memory.total < GIB
    assert [each.verdict for each in found.clusters] == ["fits"]
    assert found.outlook is None


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    run = large(resources={"workers": 4, "memory": "10GiB"})
    (problem,) = review(run, [cluster(nodes=(node(memory=2**40),))]).problems
    assert problem.path == "resources.memory"
    assert "does not fit: ZeRO 0 takes about 1" in problem.message
    assert "but resources.memory is 10.0 GiB; " in problem.message
    assert "ZeRO 3 would, at " in problem.message


def test_what_may_not_fit_is_warned_of_and_may_try() -> None:
    needed = review(large(resources={"workers": 4}), []).memory
    assert needed is not None
    almost = int(needed.total * 0.95)
    reviewed = review(large(resources={"workers": 4, "memory": almost}), [])
    assert reviewed.problems == ()
    assert reviewed.warnings[0].startswith("it may not fit: does not fit: ZeRO 0 takes about ")


def test_without_a_limit_of_its_own_the_clusters_memory_counts() -> None:
    run = large(resources={"workers": 4})
    small = cluster("small", nodes=(node(memory=2**34),))
    big = cluster("big", nodes=(node(memory=2**40),))
    (problem,) = review(run, [small]).problems
    assert problem.path == "parallelism"
    assert "cluster small has 4.00 GiB for each" in problem.message
    assert review(run, [small, big]).problems == ()
    assert review(run, [cluster("away", connected=False, nodes=small.nodes)]).problems == ()


def test_an_accelerators_memory_counts_where_its_name_is_known() -> None:
    def problems(gpu: str) -> int:
        return len(review(large(resources={"workers": 4, "gpu": gpu}), []).problems)

    assert problems("T4:1") == 1
    assert problems("H100:1") == 0
    assert problems("Abacus:1") == 0


def test_the_nodes_say_which_accelerator_there_is() -> None:
    nodes = (node(memory=2**40, gpu=4, accelerator="T4"),)
    (problem,) = review(large(resources={"workers": 4, "gpu": 1}), [cluster(nodes=nodes)]).problems
    assert "a T4 has 15 GiB" in problem.message


def test_auto_is_resolved_and_says_why() -> None:
    reviewed = review(large(resources={"workers": 4, "memory": "10GiB"}, parallelism="auto"), [])
    assert reviewed.problems == ()
    assert reviewed.spec.parallelism.tensor == 4
    assert not reviewed.spec.parallelism.auto
    degrees = {"tensor": 4, "pipeline": 1, "sequence": 1, "expert": 1}
    assert dump(reviewed.spec)["parallelism"] == {"zero": 0, **degrees, "offload": None}
    assert reviewed.reason.startswith("parallelism auto: ZeRO 0, tensor 4 (")
    assert "resources.memory is 10.0 GiB" in reviewed.reason


def test_auto_takes_no_layout_that_another_section_does_not_allow() -> None:
    """A micro-batch that is found by trial excludes ranks that compute together, and ZeRO 3."""
    asked: dict[str, Any] = {"resources": {"workers": 4, "memory": "16GiB"}, "parallelism": "auto"}
    train = {"steps": 9, "global_batch": 8}
    assert review(large(**asked, train=train), []).spec.parallelism.tensor == 4
    tried = review(large(**asked, train={**train, "micro_batch": "auto"}), []).spec.parallelism
    assert tried.tensor == 1
    assert tried.zero < 3


def test_auto_looks_for_room_in_the_clusters() -> None:
    nodes = (node(memory=2**36),)
    reviewed = review(large(resources={"workers": 4}, parallelism="auto"), [cluster(nodes=nodes)])
    assert "cluster local has 16.0 GiB for each" in reviewed.reason
    assert reviewed.memory is not None
    assert reviewed.memory.total <= 2**34


def test_auto_that_finds_nothing_is_a_problem() -> None:
    (problem,) = review(large(resources={"workers": 2, "memory": "1GiB"}, parallelism="auto"), []).problems
    assert (problem.path, problem.got) == ("parallelism", "auto")
    assert "no layout of 2 workers fits" in problem.message


def test_a_model_of_the_users_own_is_not_guessed_at() -> None:
    run = spec(recipe=None, entrypoint="mine:task")
    found = planned(run, cluster())
    assert found.works
    assert found.memory is None
    assert found.model is not None
    assert found.model.elements is None
    assert "made by mine:task" in found.model.words
    (problem,) = review(spec(recipe=None, entrypoint="mine:task", parallelism="auto"), []).problems
    assert "needs a model whose shape is known" in problem.message


def test_a_script_divides_itself() -> None:
    run = load({"name": "a", "script": "train.py", "code": f"bundle:{'0' * 64}"})
    found = planned(run, cluster())
    assert found.works
    assert (found.layout, found.batch, found.memory, found.model) == ("", None, None, None)


def test_data_that_nothing_is_known_of_is_said_to_be_assumed() -> None:
    (warning,) = review(spec(data={"source": "/data/faces.npz"}), []).warnings
    assert warning.startswith("nothing is known of /data/faces.npz before it is read")
    assert "sklearn://digits" in warning


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "hf_causal_lm"])
def test_every_recipe_is_told_its_memory_and_may_be_divided_by_itself(name: str) -> None:
    found = planned(spec(recipe=name))
    assert found.problems == ()
    assert found.warnings == ()
    assert found.memory is not None
    assert found.memory.parameters > 4 * 1000
    chosen = review(spec(recipe=name, parallelism="auto"), [])
    assert chosen.problems == ()
    assert not chosen.spec.parallelism.auto
    assert chosen.reason.startswith("parallelism auto: ZeRO ")


def test_a_pretrained_model_is_known_where_its_config_was_found() -> None:
    run = spec(recipe="hf_causal_lm", model={"weights": "/models/my-llama", "context": 48})
    config = {"model_type": "gpt2", "vocab_size": 131, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}
    found = plan(run, [], found={"config": config})
    assert found.memory is not None
    assert found.model is not None
    assert found.model.elements == 162_560
    unknown = plan(run, [], found={"why": "there is no such file"})
    assert unknown.works
    assert unknown.memory is None
    assert unknown.model is not None
    assert unknown.model.words == "its size is not known: there is no such file"
    long = review(spec(recipe="hf_causal_lm", model={"config": "/m", "context": 65}), [], {"config": config})
    assert [each.path for each in long.problems] == ["model.context"]


def test_prepared_data_are_no_assumption() -> None:
    run = spec(data={"source": "/data/faces", "prepared": "/prepared", "steps": {"resize": [64, 48]}})
    images = {"training": 500, "channels": 3, "height": 64, "width": 48, "classes": 7}
    found = review(run, [], images)
    assert found.warnings == ()
    assert found.model is not None
    assert found.model.words.endswith(" parameters, for the data as they were prepared")
    assumed = review(run, [])
    assert assumed.model is not None
    assert assumed.model.elements is not None
    assert found.model.elements is not None
    assert found.model.elements - assumed.model.elements == 2 * 16 * 9 - 3 * (32 * 16 + 1)  # channels and classes
    assert found.memory is not None
    assert assumed.memory is not None
    assert found.memory.activations == pytest.approx(assumed.memory.activations, rel=0.1)  # both know the size


def test_rows_that_are_dealt_out_are_told_beside_the_model() -> None:
    model = planned(spec(recipe="recommender")).model
    assert model is not None
    assert model.words == "13,503 parameters on every rank, and 9,066 rows of 33 dealt out over them"


def test_columns_of_a_table_that_is_not_known_are_told_with_what_was_assumed() -> None:
    (warning,) = review(spec(recipe="tabular", data={"source": "/data/customers.csv"}), []).warnings
    assert warning.endswith(
        "is reckoned as for sklearn://breast_cancer (569 samples, 30 numbers, no categories, 2 classes)"
    )


def test_auto_takes_what_earlier_runs_took() -> None:
    run = spec(parallelism="auto")
    pasts = [
        Past(f"run-{zero}", dump(spec(parallelism={"zero": zero})), 100, took, took, whole=True)
        for zero, took in ((0, 90.0), (3, 10.0), (1, 50.0))
    ]
    nominal = review(run, [])
    assert "nominal" in nominal.reason
    reviewed = review(run, [], pasts=pasts)
    assert reviewed.spec.parallelism.zero == 3
    assert "by the 0.05 s that it took in run-3" in reviewed.reason
    assert plan(run, [], pasts).reason == reviewed.reason


def test_every_problem_is_named_at_once() -> None:
    run = spec(
        recipe="text_transformer",
        model={"width": 100, "heads": 3},
        deepspeed={"sparse_gradients": True, "zero_optimization": {"offload_param": {"device": "cpu"}}},
    )
    assert [each.path for each in review(run, []).problems] == [
        "deepspeed.sparse_gradients",
        "deepspeed.zero_optimization.offload_param",
        "model.width",
    ]


def test_a_batch_larger_than_the_data_is_foreseen() -> None:
    (problem,) = review(spec(train={"epochs": 1, "global_batch": 1300}), []).problems
    assert problem.path == "train.global_batch"
    assert problem.message == "must not exceed the 1258 training examples"


def test_a_gang_that_no_cluster_takes_does_not_work() -> None:
    found = planned(spec(resources={"workers": 64}, train={"epochs": 1, "global_batch": 64}), cluster())
    assert [each.verdict for each in found.clusters] == ["never"]
    assert not found.works
    assert planned(spec()).works  # there is none yet: it would wait


def test_a_review_looks_at_what_is_trained_and_not_at_what_it_is_called() -> None:
    alike = {"name": "b", "priority": 90, "train": {"epochs": 1, "lr": 0.5, "seed": 7}}
    one, same, other = (dump(spec(**each)) for each in ({}, alike, {"model": {"width": 8}}))
    assert looked_at(one) == looked_at(same)
    assert looked_at(one) != looked_at(other)
