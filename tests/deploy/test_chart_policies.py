"""What holds of every object of the chart, whatever the values."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.chart import CHART, VALUES, containers, containers_of, of_kind, pods, rendered

pytestmark = [pytest.mark.usefixtures("real_helm"), pytest.mark.parametrize("values", VALUES)]

WITHOUT_PROBE = ("agent", "digits")  # see templates/_ray.tpl; a test's pod ends by itself
SECRET_WORDS = ("TOKEN", "PASSWORD", "SECRET", "ACCESS_KEY", "CREDENTIAL", "STORE_URL")
PATHS = ("_DIR", "_FILE", "_PATH")


def test_nobody_is_root_or_may_become_it(values: str) -> None:
    for name, _, pod in pods(values):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(pod.get(each) for each in ("hostNetwork", "hostPID", "hostIPC")), name
    for name, container in containers(values):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"]["drop"] == ["ALL"], name
        assert not security.get("privileged"), name


def test_only_rdma_takes_a_capability(values: str) -> None:
    for name, container in containers(values):
        added = container["securityContext"]["capabilities"].get("add", [])
        rdma = any(key.startswith("rdma/") for key in container["resources"]["limits"])
        assert added == (["IPC_LOCK"] if rdma else []), name


def test_nothing_of_a_node_is_mounted(values: str) -> None:
    for name, _, pod in pods(values):
        assert not any("hostPath" in volume for volume in pod.get("volumes", ())), name


def test_every_container_says_what_it_may_use(values: str) -> None:
    for name, container in containers(values):
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), name


def test_every_container_is_probed(values: str) -> None:
    for name, container in containers(values):
        if not name.endswith(WITHOUT_PROBE):
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name


def test_images_are_pinned(values: str) -> None:
    for name, container in containers(values):
        image = container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        assert "@sha256:" in image or tag not in ("", "latest"), f"{name}: {image}"


def test_no_secret_stands_in_the_environment_or_the_command_line(values: str) -> None:
    for name, container in containers(values):
        for each in container.get("env", ()):
            if any(word in each["name"] for word in SECRET_WORDS) and not each["name"].endswith(PATHS):
                assert "secretKeyRef" in each.get("valueFrom", {}), f"{name}: {each['name']}"


def test_secrets_that_are_named_are_not_made(values: str) -> None:
    made = {each["metadata"]["name"] for each in of_kind(values, "Secret")}
    expected = {"external-postgres": set(), "minimal": {"evertrain-tokens"}}
    if values in expected:
        assert made == expected[values]


def test_no_role_is_a_wildcard(values: str) -> None:
    for each in rendered(values):
        if each["kind"] in ("Role", "ClusterRole"):
            for rule in each["rules"]:
                assert "*" not in (*rule["verbs"], *rule.get("resources", ()), *rule.get("apiGroups", ())), each


def selects(selector: Any, labels: Any) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_every_pod_is_under_a_network_policy(values: str) -> None:
    policies = of_kind(values, "NetworkPolicy")
    for name, labels, _ in pods(values):
        assert any(selects(each["spec"]["podSelector"], labels) for each in policies), name


def test_ray_is_open_to_its_own_cluster_alone(values: str) -> None:
    for cluster in of_kind(values, "RayCluster"):
        own = {"podSelector": {"matchLabels": {"ray.io/cluster": cluster["metadata"]["name"]}}}
        policy = next(each for each in of_kind(values, "NetworkPolicy") if each["metadata"]["name"].endswith("-ray"))
        for rule in policy["spec"]["ingress"]:
            if rule.get("ports") != [{"port": 8080}]:
                assert rule["from"] == [own]


def test_services_and_budgets_find_their_pods(values: str) -> None:
    every = [labels for _, labels, _ in pods(values)]
    for each in (*of_kind(values, "Service"), *of_kind(values, "PodDisruptionBudget")):
        selector = each["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= labels.items() for labels in every), each["metadata"]["name"]


def test_everything_that_a_pod_mounts_exists_or_is_named_by_the_values(values: str) -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in rendered(values)}
    named = (CHART / "ci" / f"{values}-values.yaml").read_text()
    # What operators make: KubeRay the token of Ray, cert-manager the certificate.
    by_others = {("RayCluster", "name"), ("Certificate", "secretName")}
    others = {
        {**each["metadata"], **each["spec"]}.get(key)
        for each in rendered(values)
        for kind, key in by_others
        if each["kind"] == kind
    }
    for name, _, pod in pods(values):
        for volume in pod.get("volumes", ()):
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in made, f"{name}: {claim}"
            if config := volume.get("configMap"):
                assert ("ConfigMap", config["name"]) in made, f"{name}: {config}"
            if secret := volume.get("secret"):
                known = ("Secret", secret["secretName"]) in made or secret["secretName"] in others
                assert known or f": {secret['secretName']}" in named, f"{name}: {secret}"
        mounted = {mount["name"] for each in containers_of(pod).values() for mount in each.get("volumeMounts", ())}
        claimed = {"data"}
        assert mounted <= {each["name"] for each in pod.get("volumes", ())} | claimed, name


def test_common_labels_reach_every_object(values: str) -> None:
    if values == "everything-on":
        for each in rendered(values):
            assert each["metadata"]["labels"]["team"] == "ml-platform"
            assert each["metadata"]["annotations"]["owner"] == "ml-platform@example.com"


def test_one_registry_serves_every_image_where_one_is_named(values: str) -> None:
    if values == "airgapped-registry":
        for name, container in containers(values):
            assert container["image"].startswith("registry.corp.internal:5000/mirror/"), name
            assert "@sha256:" in container["image"], name
        for name, _, pod in pods(values):
            assert pod["imagePullSecrets"] == [{"name": "registry"}], name
