"""Kinds that operators bring, as far as the chart uses them: field names and types as their API references have them.

Prometheus operator (monitoring.coreos.com/v1, v1alpha1), cert-manager (cert-manager.io/v1) and the Gateway API
(gateway.networking.k8s.io/v1). A field that is not listed here is refused: it would be dropped without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema

FOREIGN = ("ray.io/", "monitoring.coreos.com/", "cert-manager.io/", "gateway.networking.k8s.io/")

_TEXT = {"type": "string"}
_TRUTH = {"type": "boolean"}
_NUMBER = {"type": "integer"}
_TEXTS = {"type": "array", "items": _TEXT}
_LABELS = {"type": "object", "additionalProperties": _TEXT}
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"}


def _fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_KEY_OF_A_SECRET = _fields(("name", "key"), name=_TEXT, key=_TEXT, optional=_TRUTH)
_SELECTOR = _fields(matchLabels=_LABELS, matchExpressions=_list({"type": "object"}))
_AUTHORIZATION = _fields(type=_TEXT, credentials=_KEY_OF_A_SECRET)
_TLS = _fields(serverName=_TEXT, ca=_fields(secret=_KEY_OF_A_SECRET), insecureSkipVerify=_TRUTH)
_RELABELING = _fields(
    action=_TEXT, sourceLabels=_TEXTS, targetLabel=_TEXT, replacement=_TEXT, regex=_TEXT, separator=_TEXT
)
_ENDPOINT = _fields(
    port=_TEXT,
    path=_TEXT,
    scheme={"enum": ["http", "https"]},
    interval=_DURATION,
    scrapeTimeout=_DURATION,
    authorization=_AUTHORIZATION,
    tlsConfig=_TLS,
    relabelings=_list(_RELABELING),
)
_RULE = _fields(
    ("expr",),
    record=_TEXT,
    alert=_TEXT,
    expr={"type": ["string", "integer"]},
    **{"for": _DURATION},
    keep_firing_for=_DURATION,
    labels=_LABELS,
    annotations=_LABELS,
)
_MATCHER = _fields(("name",), name=_TEXT, value=_TEXT, matchType={"enum": ["=", "!=", "=~", "!~"]})
_ROUTE = _fields(
    receiver=_TEXT,
    groupBy=_TEXTS,
    groupWait=_DURATION,
    groupInterval=_DURATION,
    repeatInterval=_DURATION,
    matchers=_list(_MATCHER),
    routes=_list({"type": "object"}),
    **{"continue": _TRUTH},
)
_WEBHOOK = _fields(
    url=_TEXT,
    urlSecret=_KEY_OF_A_SECRET,
    sendResolved=_TRUTH,
    maxAlerts=_NUMBER,
    httpConfig=_fields(authorization=_AUTHORIZATION, tlsConfig=_TLS),
)
_KINDS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _fields(
        ("selector", "endpoints"), selector=_SELECTOR, endpoints=_list(_ENDPOINT), jobLabel=_TEXT
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): _fields(
        ("selector", "podMetricsEndpoints"), selector=_SELECTOR, podMetricsEndpoints=_list(_ENDPOINT), jobLabel=_TEXT
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _fields(
        groups=_list(_fields(("name", "rules"), name=_TEXT, interval=_DURATION, rules=_list(_RULE)))
    ),
    ("monitoring.coreos.com/v1alpha1", "AlertmanagerConfig"): _fields(
        route=_ROUTE, receivers=_list(_fields(("name",), name=_TEXT, webhookConfigs=_list(_WEBHOOK)))
    ),
    ("cert-manager.io/v1", "Certificate"): _fields(
        ("secretName", "issuerRef"),
        secretName=_TEXT,
        issuerRef=_fields(("name",), name=_TEXT, kind=_TEXT, group=_TEXT),
        dnsNames=_TEXTS,
        usages=_list({"enum": ["server auth", "client auth", "digital signature", "key encipherment"]}),
        privateKey=_fields(
            algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size=_NUMBER, rotationPolicy={"enum": ["Never", "Always"]}
        ),
    ),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): _fields(
        parentRefs=_list(_fields(("name",), name=_TEXT, namespace=_TEXT, kind=_TEXT, group=_TEXT, sectionName=_TEXT)),
        hostnames=_TEXTS,
        rules=_list(_fields(backendRefs=_list(_fields(("name",), name=_TEXT, port=_NUMBER, weight=_NUMBER)))),
    ),
}


def check(found: Mapping[str, Any]) -> None:
    """Raises jsonschema.ValidationError; KeyError for a kind that nobody has written down here."""
    spec = _KINDS[found["apiVersion"], found["kind"]]
    whole = _fields(("apiVersion", "kind", "metadata", "spec"), apiVersion=_TEXT, kind=_TEXT, metadata={}, spec=spec)
    jsonschema.validate(found, whole)
