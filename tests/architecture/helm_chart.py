"""Renders the Helm chart as Kubernetes objects, and as the one manifest file that needs no Helm.

    python -m tests.architecture.helm_chart docker/kubernetes/serac-gateway.yaml

Helm comes as a library in a wheel, for Linux on x86-64 alone; the caller of `render` imports or skips.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "docker" / "helm" / "serac-gateway"
MANIFESTS = ROOT / "docker" / "kubernetes" / "serac-gateway.yaml"

PLAIN_VALUES: Mapping[str, Any] = {
    "fullnameOverride": "serac-gateway",
    "store": {"url": "redis://redis:6379/0"},
    "upstream": {"url": "http://vllm:8000/v1"},
}
"""Values of the manifest file, beside the chart's own."""
_HEADER = """\
# The gateways without Helm: the chart docker/helm/serac-gateway with its own values. Made by: make manifests
# Before `kubectl apply --namespace NAMESPACE --filename docker/kubernetes/serac-gateway.yaml`:
# - set SERAC_STORE__URL (Redis or Valkey), SERAC_UPSTREAM__URL (your model server) and the image below;
# - kubectl create secret generic serac-gateway --from-literal=key-pepper="$(openssl rand -hex 32)"
# The gateways start once there is an API key: see Kubernetes in serac_gateway/docs/operations.md.
"""


def texts(values: Mapping[str, Any], *, name: str = "serac", namespace: str = "chat") -> dict[str, str]:
    """The rendered text of each template that renders to anything, by its file's name.

    Raises:
        HelmError: The values do not fit the schema, or a template refuses them.
    """
    from helm_python import Chart

    chart = Chart.load(CHART)
    rendered = chart.render(dict(values), name=name, namespace=namespace)
    return {path.rpartition("/")[2]: text for path, text in sorted(rendered.items()) if text.strip()}


def render(
    values: Mapping[str, Any], *, name: str = "serac", namespace: str = "chat"
) -> list[dict[str, Any]]:
    """The Kubernetes objects that `values` give; see `texts`."""
    files = texts(values, name=name, namespace=namespace)
    return [yaml.safe_load(text) for file, text in files.items() if file.endswith(".yaml")]


def plain_manifests() -> str:
    """The text of `MANIFESTS`: objects without namespace, so that kubectl chooses it."""
    objects = render(PLAIN_VALUES, name="serac-gateway", namespace="")
    for item in objects:
        item["metadata"] = {key: value for key, value in item["metadata"].items() if key != "namespace"}
    dumped = (yaml.dump(item, Dumper=_Dumper, sort_keys=False, width=110) for item in objects)
    return _HEADER + "".join(f"---\n{text}" for text in dumped)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(plain_manifests(), "utf-8")
