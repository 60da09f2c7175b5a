"""What a rank finds in its environment."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.cluster.gang_messages import Bind, StartRanks
from orchestrator.cluster.rank_env import Place, launch_of, rank_env
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare

START = StartRanks(1, "127.0.0.1", 29500, (), 0)


def bind(**spec: object) -> Bind:
    values = {"recipe": "digits_cnn", "resources": {"cpu": 2}, **spec}
    share = NodeShare("node-1", "host-1", "10.0.0.1", 1)
    return Bind(AttemptOrder("run-1", "default", "run", 1, (share,), values, "/checkpoints"), 0)


def env_of(bound: Bind, **node: str) -> dict[str, str]:
    return rank_env({"PATH": "/bin", "OMP_NUM_THREADS": "99", **node}, bound, START, Place(0, 0, 1, None))


def threads_of(bound: Bind) -> int:
    return launch_of(bound, START, staging_dir="/s", code_dir=None, socket="/p").threads


def test_a_rank_has_a_thread_for_each_of_its_cpus() -> None:
    assert (env_of(bind())["OMP_NUM_THREADS"], env_of(bind())["MKL_NUM_THREADS"], threads_of(bind())) == ("2", "2", 2)


def test_what_the_run_file_says_about_threads_holds() -> None:
    bound = bind(env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3", "PYTHONUNBUFFERED": ""})
    env = env_of(bound)
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"], env["PYTHONUNBUFFERED"]) == ("1", "3", "")
    assert threads_of(bound) == 1


def test_ranks_know_what_must_be_there_to_resume_from() -> None:
    start = replace(START, sealed_step=300)
    assert launch_of(bind(), start, staging_dir="/s", code_dir=None, socket="/p").sealed_step == 300


def test_ranks_know_what_to_begin_with_and_how_much_memory_is_theirs() -> None:
    bound = bind(init_from={"model": "a@1", "checkpoint": "/c"}, resources={"memory": 2**30})
    launch = launch_of(bound, START, staging_dir="/s", code_dir=None, socket="/p")
    assert launch.config["init_from"] == {"model": "a@1", "checkpoint": "/c"}
    assert launch.memory_bytes == 2**30


def test_nobody_overrules_where_the_gang_meets() -> None:
    assert env_of(bind(env={"RANK": "7", "MASTER_PORT": "1"}))["RANK"] == "0"
    assert env_of(bind(env={"RANK": "7", "MASTER_PORT": "1"}))["MASTER_PORT"] == "29500"


def test_a_run_without_gpus_sees_none_on_a_node_that_has_some() -> None:
    env = env_of(bind(resources={"gpu": 0}), CUDA_VISIBLE_DEVICES="0,1")
    assert (env["DS_ACCELERATOR"], env["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
    assert env_of(bind(), NVIDIA_VISIBLE_DEVICES="all")["CUDA_VISIBLE_DEVICES"] == ""


def test_a_run_with_gpus_sees_those_that_ray_gave_it() -> None:
    env = env_of(bind(resources={"gpu": 1}), CUDA_VISIBLE_DEVICES="2,3")
    assert (env["DS_ACCELERATOR"], env["CUDA_VISIBLE_DEVICES"]) == ("cuda", "2,3")
