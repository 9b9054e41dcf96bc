"""The Helm chart: its objects are valid, fit each other, and set what the gateway knows."""

from __future__ import annotations

import copy
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serac_gateway.config.loading import load_config
from tests.architecture.helm_chart import CHART, MANIFESTS, PLAIN_VALUES, plain_manifests, render, texts

helm = pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).parents[2]
STORE = {"store": {"url": "redis://redis:6379/0"}}
UPSTREAM = {"upstream": {"url": "http://vllm:8000/v1"}}
KEDA = {
    "autoscaling": {"enabled": False},
    "keda": {"enabled": True, "serverAddress": "http://prometheus:9090", "authenticationRef": "prometheus"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
EVERYTHING = {
    "image": {"pullSecrets": ["registry"], "tag": "1.2.3"},
    "serviceAccount": {"annotations": {"example.com/role": "gateway"}, "name": "gateway"},
    "service": {"annotations": {"example.com/internal": "true"}, "type": "LoadBalancer"},
    "secretRefs": {"SERAC_STORE__URL": {"name": "redis", "key": "url"}},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "chat"}}}]},
    "podAnnotations": {"example.com/a": "b"},
    "podLabels": {"team": "chat"},
    "nodeSelector": {"pool": "cpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "resources": {"limits": {"nvidia.com/gpu": 1}},
    "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
}
NOTHING_OPTIONAL = {
    section: {"enabled": False}
    for section in ("autoscaling", "networkPolicy", "podDisruptionBudget", "topologySpread")
} | {"serviceAccount": {"create": False}, "replicas": 1}
CASES = {
    "plain": dict(PLAIN_VALUES),
    "cpu": STORE | UPSTREAM,
    "keda": STORE | UPSTREAM | KEDA,
    "everything": EVERYTHING,
    "nothing optional": STORE | NOTHING_OPTIONAL,
}
OF_CRDS = {"ScaledObject", "ServiceMonitor"}
OLDEST, NEWEST = "1.25", "1.37"


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """The rendered objects by kind; there is at most one of each."""
    items = render(request.param)
    by_kind = {item["kind"]: item for item in items}
    assert len(by_kind) == len(items)
    return by_kind


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def environment(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    [container] = pod(objects)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


# -- objects are valid


def strict_schema(kind: str) -> dict[str, Any]:
    """The schema of a custom resource. Its models ignore unknown fields, so it is closed here."""
    if kind == "ScaledObject":
        model = pytest.importorskip("cloudcoil.models.keda.v1alpha1").ScaledObject
    else:
        model = pytest.importorskip("cloudcoil.models.prometheus_operator.v1").ServiceMonitor
    schema: dict[str, Any] = model.model_json_schema(by_alias=True)
    for definition in [schema, *schema["$defs"].values()]:
        if "properties" in definition:
            definition["additionalProperties"] = False
    return schema


def validate(item: dict[str, Any]) -> None:
    if item["kind"] in OF_CRDS:
        jsonschema.validate(item, strict_schema(item["kind"]))
    else:
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(item, version, strict=True)


def test_every_object_keeps_to_its_schema(objects: dict[str, dict[str, Any]]) -> None:
    for item in objects.values():
        validate(item)


@pytest.mark.parametrize(
    ("kind", "misspell"),
    [
        (
            "Deployment",
            lambda item: item["spec"]["template"]["spec"]["containers"][0].update(livenessProbes={}),
        ),
        ("ScaledObject", lambda item: item["spec"]["fallback"].update(replica=1)),
        ("ServiceMonitor", lambda item: item["spec"]["endpoints"][0].update(honourLabels=True)),
    ],
)
def test_a_misspelt_field_of_each_kind_of_schema_is_noticed(
    kind: str, misspell: Callable[[dict[str, Any]], None]
) -> None:
    [item] = [item for item in render(CASES["keda"]) if item["kind"] == kind]
    validate(item)
    misspell(item)
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(item)


def test_the_chart_has_no_faults_of_its_own() -> None:
    result = helm.lint(CHART, STORE)
    assert [message["error"] for message in result["messages"]] == ["icon is recommended"]


# -- objects fit each other


def test_labels_and_selectors_fit(objects: dict[str, dict[str, Any]]) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    chosen = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in pod(objects).get("topologySpreadConstraints", ())
        ),
    ]
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        if kind in objects:
            chosen.append(objects[kind]["spec"][field]["matchLabels"])
    if "ServiceMonitor" in objects:
        matched = objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
        assert matched.items() <= objects["Service"]["metadata"]["labels"].items()
    for selector in chosen:
        assert selector
        assert selector.items() <= labels.items()


def test_every_port_that_is_named_exists(objects: dict[str, dict[str, Any]]) -> None:
    [container] = pod(objects)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["http"]) == environment(objects)["SERAC_SERVER__PORT"]
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    of_service = objects["Service"]["spec"]["ports"]
    assert {*probes, *(port["targetPort"] for port in of_service)} == {"http"}
    if "NetworkPolicy" in objects:
        [ingress] = objects["NetworkPolicy"]["spec"]["ingress"]
        assert [port["port"] for port in ingress["ports"]] == ["http"]
    if "ServiceMonitor" in objects:
        [endpoint] = objects["ServiceMonitor"]["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in of_service}


def test_whatever_scales_names_the_deployment_which_then_has_no_number_of_its_own(
    objects: dict[str, dict[str, Any]],
) -> None:
    scaling = [objects[kind] for kind in ("HorizontalPodAutoscaler", "ScaledObject") if kind in objects]
    deployment = objects["Deployment"]
    assert ("replicas" in deployment["spec"]) == (not scaling)
    for item in scaling:
        target = item["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"], target["name"]) == (
            deployment["apiVersion"],
            "Deployment",
            deployment["metadata"]["name"],
        )


def least_replicas(objects: dict[str, dict[str, Any]]) -> int:
    if "ScaledObject" in objects:
        return int(objects["ScaledObject"]["spec"]["minReplicaCount"])
    if "HorizontalPodAutoscaler" in objects:
        return int(objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"])
    return int(objects["Deployment"]["spec"]["replicas"])


def test_a_disruption_and_a_rollout_leave_gateways_that_serve(objects: dict[str, dict[str, Any]]) -> None:
    if "PodDisruptionBudget" in objects:
        assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] < least_replicas(objects)
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_every_volume_and_account_that_is_named_exists(objects: dict[str, dict[str, Any]]) -> None:
    [container] = pod(objects)["containers"]
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert volumes["config"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    account = pod(objects)["serviceAccountName"]
    created = objects.get("ServiceAccount", {"metadata": {"name": "default"}})
    assert account == created["metadata"]["name"]


def test_the_pod_ends_after_its_longest_stream(objects: dict[str, dict[str, Any]]) -> None:
    [container] = pod(objects)["containers"]
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    drain = float(environment(objects)["SERAC_SERVER__DRAIN_TIMEOUT_S"])
    assert pod(objects)["terminationGracePeriodSeconds"] >= int(pause) + drain + 30


# -- the gateway knows what they set


def test_the_gateway_starts_with_the_configuration_and_environment(
    objects: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    [container] = pod(objects)["containers"]
    command, _, path = container["args"]
    assert command == "serve"
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
    name = Path(path).relative_to(mount["mountPath"]).name
    (tmp_path / name).write_text(objects["ConfigMap"]["data"][name], "utf-8")
    config = load_config(tmp_path / name, environment=environment(objects))
    assert config.server.host == "0.0.0.0"
    assert config.demands_keys
    assert not math.isinf(config.store.max_staleness_s)
    keda = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["keda"]
    assert config.models.decision_threads == keda["decisionThreads"]


def test_liveness_looks_at_the_event_loop_alone_and_readiness_at_everything(
    objects: dict[str, dict[str, Any]],
) -> None:
    [container] = pod(objects)["containers"]
    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/health/live", "readiness": "/health/ready", "liveness": "/health/live"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_secrets_stand_in_the_objects_by_name_alone(objects: dict[str, dict[str, Any]]) -> None:
    [container] = pod(objects)["containers"]
    secret = {entry["name"] for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})}
    variables = set(
        re.findall(r"`(SERAC_\w+_(?:KEY|PEPPER))`", (ROOT / "serac_gateway/docs/operations.md").read_text())
    )
    assert variables - {"SERAC_API_KEY"} <= secret
    assert "Secret" not in objects


def keda_queries() -> Iterator[str]:
    for item in render(CASES["keda"]):
        if item["kind"] == "ScaledObject":
            for trigger in item["spec"]["triggers"]:
                assert trigger["metricType"] == "AverageValue"  # the fallback needs it
                assert trigger["metadata"]["ignoreNullValues"] == "false"
                yield trigger["metadata"]["query"]


def test_the_queries_of_keda_name_metrics_and_stages_of_the_gateway() -> None:
    source = "".join(
        (ROOT / "serac_gateway" / "observability" / name).read_text("utf-8")
        for name in ("metrics.py", "gauges.py")
    )
    exposed = set(re.findall(r'"(serac_[a-z_]+)"', source))
    queries = list(keda_queries())
    assert len(queries) == 3
    for query in queries:
        names = re.findall(r"serac_[a-z_]+", query.replace("serac-gateway", ""))
        assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in names} <= exposed
        assert set(re.findall(r'stage!?="(\w+)"', query)) <= {"encode", "search", "classify", "total"}
        for opening, closing in ("()", "{}", "[]"):
            assert query.count(opening) == query.count(closing)
        assert query.count('service="serac-serac-gateway"') == len(names)


def test_a_trigger_with_threshold_0_is_left_out() -> None:
    values = copy.deepcopy(CASES["keda"])
    values["keda"] |= {"requestsInFlight": 0, "answersQueued": 0}
    [scaled] = [item for item in render(values) if item["kind"] == "ScaledObject"]
    assert [trigger["name"] for trigger in scaled["spec"]["triggers"]] == ["decision-queue-seconds"]


def test_another_configuration_makes_other_pods() -> None:
    first, second = (
        {item["kind"]: item for item in render(STORE | {"config": f"[routing]\nhold_s = {hold}.0\n"})}
        for hold in (1, 2)
    )
    annotations = [
        each["Deployment"]["spec"]["template"]["metadata"]["annotations"] for each in (first, second)
    ]
    assert annotations[0] != annotations[1]


# -- values


def test_the_schema_of_the_values_is_itself_valid_and_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    jsonschema.validate(defaults, schema)
    assert schema["properties"].keys() - {"global"} == defaults.keys()
    for section, described in schema["properties"].items():
        if "properties" in described and section != "resources":
            assert described["properties"].keys() == defaults[section].keys(), section


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (UPSTREAM, "set store.url"),
        (EVERYTHING | STORE, "remove one of them"),
        ({"store": {"url": "redis://user:secret@redis:6379/0"}}, "secretRefs.SERAC_STORE__URL"),
        (STORE | {"replica": 2}, "replica"),
        (STORE | {"replicas": 0}, "/replicas"),
        (STORE | {"upstream": {"url": "vllm:8000"}}, "/upstream/url"),
        (STORE | {"secretRefs": {"SERAC_UPSTREAM_API_KEY_OPENAI": {"name": "a"}}}, "missing property 'key'"),
        (STORE | {"keda": {"enabled": True, "serverAddress": "http://p"}}, "disable one of them"),
        (STORE | {"autoscaling": {"enabled": False}, "keda": {"enabled": True}}, "keda.serverAddress"),
        (STORE | {"podDisruptionBudget": {"maxUnavailable": 3}}, "lower it, or run more"),
        (
            STORE | {"autoscaling": {"minReplicas": 9, "maxReplicas": 4}},
            "minReplicas 9 is above maxReplicas 4",
        ),
    ],
)
def test_values_that_cannot_work_are_refused_with_a_reason(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(reason)):
        render(values)


def test_the_notes_name_commands_of_the_gateway() -> None:
    notes = texts(STORE)["NOTES.txt"]
    assert "serac keys create --offline --role admin --name ops" in notes
    assert "http://serac-serac-gateway.chat:80/v1" in notes


def test_the_chart_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == project["version"]


def test_the_manifest_file_is_what_the_chart_renders() -> None:
    assert plain_manifests() == MANIFESTS.read_text("utf-8"), "run: make manifests"
    for item in yaml.safe_load_all(MANIFESTS.read_text("utf-8")):
        kubernetes_validate.validate(item, NEWEST, strict=True)
        assert "namespace" not in item["metadata"]
