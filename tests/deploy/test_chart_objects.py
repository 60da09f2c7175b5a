"""What the chart renders is what Kubernetes, KubeRay and the other operators take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.settings import Settings
from tests.deploy.chart import (
    CHART,
    NAMESPACE,
    ROOT,
    VALUES,
    Object,
    containers_of,
    environment,
    head,
    mounts,
    of_kind,
    one,
    pods,
    rendered,
    run,
    server,
)
from tests.deploy.foreign_kinds import FOREIGN, check
from tests.shared_data import SHARED_DATA

pytestmark = pytest.mark.usefixtures("real_helm")

KUBERNETES = ("1.30", "1.37")
CRDS = SHARED_DATA / "kuberay-crds"


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_nothing_wrong(values: str) -> None:
    done = run("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{values}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_defaults_render_without_any_value() -> None:
    done = run("template", "x", str(CHART))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_takes_every_object(values: str, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in rendered(values):
        if not each["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("values", VALUES)
def test_the_operators_take_every_object_of_theirs(values: str) -> None:
    for each in rendered(values):
        if each["apiVersion"].startswith(FOREIGN) and each["kind"] != "RayCluster":
            check(each)


def test_every_kind_of_an_operator_is_rendered_somewhere() -> None:
    kinds = {each["kind"] for values in VALUES for each in rendered(values)}
    assert kinds >= {
        "RayCluster", "ServiceMonitor", "PodMonitor", "PrometheusRule", "AlertmanagerConfig", "Certificate", "GRPCRoute",
    }  # fmt: skip


def closed(schema: Any) -> Any:
    """The schema with every object of known properties closed to others: an API server would drop them without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if (
        "properties" in found
        and "additionalProperties" not in found
        and not found.get("x-kubernetes-preserve-unknown-fields")
    ):
        found["additionalProperties"] = False
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
    return found


@pytest.fixture(scope="module")
def ray_cluster() -> jsonschema.Draft7Validator:
    path = CRDS / "ray.io_rayclusters.yaml"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in {CRDS}")
    definition = yaml.load(path.read_text(), yaml.CSafeLoader)
    version = next(each for each in definition["spec"]["versions"] if each["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    # Of metadata a CRD says nothing: it is Kubernetes' own.
    open_metadata = {**schema["properties"], "metadata": {"type": "object"}}
    return jsonschema.Draft7Validator(closed({**schema, "properties": open_metadata}))


@pytest.mark.parametrize("values", VALUES)
def test_kuberay_takes_the_cluster(values: str, ray_cluster: jsonschema.Draft7Validator) -> None:
    for each in of_kind(values, "RayCluster"):
        errors = [f"{error.json_path}: {error.message[:200]}" for error in ray_cluster.iter_errors(each)]
        assert errors == []


def test_the_schema_of_kuberay_is_closed_to_unknown_fields(ray_cluster: jsonschema.Draft7Validator) -> None:
    cluster: Any = yaml.safe_load(yaml.safe_dump(dict(one("minimal", "RayCluster"))))
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    assert not ray_cluster.is_valid(cluster)


def test_every_setting_of_the_server_is_one_that_it_knows() -> None:
    for values in VALUES:
        names = environment(containers_of(server(values))["server"])
        ours = [name.removeprefix("EVERTRAIN_").lower() for name in names if name.startswith("EVERTRAIN_")]
        assert set(ours) <= set(Settings.model_fields), values


def test_the_store_decides_what_the_server_is() -> None:
    assert [each["metadata"]["name"] for each in of_kind("minimal", "StatefulSet")] == ["evertrain-server"]
    assert of_kind("minimal", "Deployment") == []
    deployment = one("external-postgres", "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}, "two servers would wait for each other's store"
    pod = deployment["spec"]["template"]["spec"]
    url = next(each["secret"] for each in pod["volumes"] if each["name"] == "database")
    assert (url["secretName"], url["items"]) == ("evertrain-database", [{"key": "dsn", "path": "url"}])


def test_the_agent_shares_with_the_head_what_a_driver_of_ray_must_share() -> None:
    pod = head("everything-on")
    beside, agent = (mounts(containers_of(pod)[name]) for name in ("ray-head", "agent"))
    for path in ("/tmp", "/tmp/ray", "/dev/shm"):
        assert beside[path] == agent[path]
    assert pod["shareProcessNamespace"] is True
    # KubeRay adds volumes of these names unless they exist: then head and agent would not share them.
    assert {"ray-logs", "shared-mem"} <= {each["name"] for each in pod["volumes"]}


def test_an_agent_that_ended_is_started_again_where_the_pod_is_not() -> None:
    pod = head("everything-on")
    assert pod["restartPolicy"] == "Never", "what KubeRay asks for beside its autoscaler"
    assert [(each["name"], each["restartPolicy"]) for each in pod["initContainers"]] == [("agent", "Always")]
    assert [each["name"] for each in pod["containers"]] == ["ray-head"], "KubeRay starts Ray in the first one"


def test_no_group_waits_for_workers_that_nobody_adds() -> None:
    for values in VALUES:
        for cluster in of_kind(values, "RayCluster"):
            assert cluster["spec"]["enableInTreeAutoscaling"] is (values == "everything-on"), values
            assert all(each["replicas"] > 0 for each in cluster["spec"]["workerGroupSpecs"]), values
            assert ("--autoscaling" in containers_of(head(values))["agent"]["args"]) is (values == "everything-on")


def test_only_the_autoscaler_may_speak_to_kubernetes() -> None:
    cluster = one("everything-on", "RayCluster")["spec"]
    paths = [each["mountPath"] for each in cluster["autoscalerOptions"]["volumeMounts"]]
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in paths
    for _, _, pod in pods("everything-on"):
        assert pod["automountServiceAccountToken"] is False
        for container in containers_of(pod).values():
            assert "kubernetes" not in {each["name"] for each in mounts(container).values()}


def test_groups_of_gpus_take_their_image_their_devices_and_their_network() -> None:
    groups = {each["groupName"]: each for each in one("gpu-multi-group", "RayCluster")["spec"]["workerGroupSpecs"]}
    assert set(groups) == {"h100", "l4"}, "a group that is null is left out"
    worker = groups["h100"]["template"]["spec"]["containers"][0]
    assert worker["image"] == "evertrain-ray:0.1.0-cuda"
    assert worker["resources"]["limits"] == {"cpu": "96", "memory": "1000Gi", "nvidia.com/gpu": 8, "rdma/hca": 8}
    env = environment(worker)
    assert (env["NCCL_IB_HCA"], env["NCCL_IB_GID_INDEX"], env["NCCL_DEBUG"]) == ("mlx5", "3", "WARN")
    shared = next(each for each in groups["h100"]["template"]["spec"]["volumes"] if each["name"] == "shared-mem")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Gi"}
    assert "add" not in groups["l4"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]


def test_tls_reaches_whoever_speaks_to_the_server() -> None:
    assert containers_of(server("tls"))["server"]["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    agent = containers_of(head("tls"))["agent"]
    assert "--ca-cert=/etc/evertrain/ca/ca.crt" in agent["args"]
    certificate = one("tls", "Certificate")["spec"]
    host = f"evertrain-server.{NAMESPACE}.svc"
    assert f"--server={host}:7460" in agent["args"]
    assert host in certificate["dnsNames"]
    ingress = one("tls", "Ingress")["metadata"]["annotations"]
    assert ingress["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPCS"
    # The path that the agent names to sweeps: trials read it in the containers of Ray's own nodes.
    ray = [(name, pod) for name, _, pod in pods("tls") if name.startswith("RayCluster/")]
    assert len(ray) == 2
    for name, pod in ray:
        secret = next(each["secret"] for each in pod["volumes"] if each["name"] == "server-ca")
        assert secret["secretName"] == certificate["secretName"]
        assert secret["items"] == [{"key": "ca.crt", "path": "ca.crt"}], f"{name}: the key is the server's alone"
        for container in containers_of(pod).values():
            assert mounts(container)["/etc/evertrain/ca"]["name"] == "server-ca", f"{name}/{container['name']}"


def test_the_server_writes_where_the_ranks_do() -> None:
    ours, theirs = (containers_of(pod) for pod in (server("minimal"), head("minimal")))
    root = environment(ours["server"])["EVERTRAIN_STORAGE"]
    assert mounts(ours["server"])[root] == mounts(theirs["ray-head"])[root] == {"name": "storage", "mountPath": root}
    claims = [
        each for pod in (server("minimal"), head("minimal")) for each in pod["volumes"] if each["name"] == "storage"
    ]
    assert claims[0] == claims[1] == {"name": "storage", "persistentVolumeClaim": {"claimName": "evertrain-storage"}}


def test_the_server_may_do_in_a_bucket_what_the_ranks_may() -> None:
    ours = environment(containers_of(server("external-postgres"))["server"])
    theirs = environment(containers_of(head("external-postgres"))["ray-head"])
    wanted = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert [ours[key] for key in wanted] == [theirs[key] for key in wanted]
    assert ours["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "minio", "key": "AWS_ACCESS_KEY_ID"}}


def test_a_large_number_reaches_a_setting_as_it_was_written() -> None:
    ours = environment(containers_of(server("gpu-multi-group"))["server"])
    assert (ours["EVERTRAIN_OBSERVATION_BYTES"], ours["EVERTRAIN_PRICE_GPU_HOUR"]) == ("536870912", "2.5")
    assert environment(containers_of(head("gpu-multi-group"))["ray-head"])["NCCL_BUFFSIZE"] == "8388608"
    groups = {each["groupName"]: each for each in one("everything-on", "RayCluster")["spec"]["workerGroupSpecs"]}
    assert groups["h100"]["idleTimeoutSeconds"] == 2_592_000


def test_the_agent_of_every_cluster_starts_with_options_that_it_knows() -> None:
    pytest.importorskip("ray")
    from orchestrator.cluster.agent import parse

    for values in VALUES:
        parse(containers_of(head(values))["agent"]["args"][1:])


def test_rules_and_dashboards_are_the_files_of_deploy() -> None:
    groups = one("everything-on", "PrometheusRule")["spec"]["groups"]
    files = [ROOT / "deploy" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
    assert groups == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    maps = [each for each in of_kind("everything-on", "ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]]
    shown = {name: text.strip() for each in maps for name, text in each["data"].items()}
    dashboards = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
    assert shown == {path.name: path.read_text().strip() for path in dashboards}
    assert shown


def test_the_hook_submits_the_run_file_of_the_examples() -> None:
    text = one("minimal", "ConfigMap")["data"]["digits_cnn.yaml"]
    assert text.strip() == (ROOT / "deploy" / "examples" / "digits_cnn.yaml").read_text().strip()
    hook = one("minimal", "Pod")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_links_of_the_chart_lead_to_files_of_the_repository() -> None:
    for link in (CHART / "files").iterdir():
        assert Path(link).resolve().is_relative_to(ROOT / "deploy"), link
        assert link.exists(), link


def name_of(each: Object) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


def test_an_upgrade_replaces_objects_and_adds_none() -> None:
    names = [name_of(each) for each in rendered("everything-on")]
    assert len(names) == len(set(names))
    again = [name_of(each) for each in rendered("everything-on", "--is-upgrade")]
    assert names == again


def test_names_stay_short_enough_for_what_others_append() -> None:
    long = "a-release-with-a-very-long-name-of-fifty-characters"
    objects = rendered("minimal", release=long)
    assert max(len(each["metadata"]["name"]) for each in objects) <= 52
