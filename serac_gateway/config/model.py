"""The gateway's configuration as one frozen tree; config_loading.py reads it.

Secrets are not in it: they come from the environment only.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

UPSTREAM_API_KEY_VARIABLE = "SERAC_UPSTREAM_API_KEY"
COUNTERFACTUAL_API_KEY_VARIABLE = "SERAC_COUNTERFACTUAL_API_KEY"
KEY_PEPPER_VARIABLE = "SERAC_KEY_PEPPER"
API_KEY_VARIABLE = "SERAC_API_KEY"
"""The CLI's own key, for the gateway that it calls."""

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class FailurePolicy(StrEnum):
    """What happens to a request that the gateway itself cannot decide."""

    OPEN = "open"
    """It reaches the base model unchanged."""
    CLOSED = "closed"
    """It is refused with 503."""


class CompositePolicy(StrEnum):
    """What happens to a request that takes more than stating one edit.

    It asks several things, one of them in scope, or its answer depends on edits that do not give it.
    """

    COUNTERFACTUAL_ONLY = "counterfactual_only"
    """What is in scope is answered here all the same, the rest is not touched."""
    IN_CONTEXT = "in_context_for_composite"
    """The base model answers, with the edits concerned stated in its context."""
    PASS_THROUGH = "pass_composite_through"
    """It reaches the base model unchanged."""


class ConflictPolicy(StrEnum):
    """What happens to an edit that answers a question otherwise than edits in force."""

    NEWEST_WINS = "newest_wins"
    """It is stored, and of the edits the newest governs."""
    REJECT = "reject"
    """It is refused with 409."""
    SUPERSEDE = "supersede"
    """It is stored, and the others are retired in the same commit."""


class ServerConfig(_Section, frozen=True, kw_only=True):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    max_control_body_bytes: PositiveInt = 10_000_000
    """Limit of a body on /serac/v1, but for /edits:import, which streams."""
    max_classified_body_bytes: PositiveInt = 64_000_000
    """A /v1 request beyond it is passed on unclassified."""
    max_head_bytes: PositiveInt = 65_536
    """Limit of a request's line and headers together; more is refused with 431."""
    head_timeout_s: PositiveFloat = 20.0
    """From a request's first byte to the end of its headers; else 408."""
    body_gap_timeout_s: PositiveFloat = 60.0
    """The longest gap between two parts of a request's body; else 408."""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses and networks (10.0.0.0/8) of proxies in front of the gateway, whose X-Forwarded-For and
    X-Forwarded-Proto tell the client's address and scheme; of anyone else's nothing is believed."""
    ping_interval_s: PositiveFloat | None = None
    """How often an event stream that the upstream has begun gets a comment while its first event is waited
    for; None: never, streams stay byte for byte."""
    drain_timeout_s: PositiveFloat = 30.0
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """Processes that serve HTTP. With more than one, one process more has models, edits and store, and they
    ask it; 1: a single process does everything."""


class AccessConfig(_Section, frozen=True, kw_only=True):
    """Who may call."""

    required: bool | None = None
    """Whether API keys are demanded. None: exactly when the gateway listens beyond loopback."""
    outage_grace_s: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    """How long a key goes on working that the store, which does not answer now, gave out last."""


class StoreConfig(_Section, frozen=True, kw_only=True):
    """The edit store."""

    url: Annotated[str, msgspec.Meta(pattern=r"^(rediss?(\+(sentinel|cluster))?|unix)://.")] | None = None
    """redis://, rediss://, redis+sentinel://, redis+cluster:// or unix:// (see stores/redis/clients.py);
    None: an embedded Valkey in the data folder."""
    ca_file: str | None = None
    """For rediss: the certificates (PEM) of who vouches for the server. None: whom the system trusts."""
    cert_file: str | None = None
    """For rediss: the gateway's own certificate, where the server asks for one."""
    key_file: str | None = None
    """The key to `cert_file`."""
    max_staleness_s: PositiveFloat = 10.0
    """How long the edits in force may be older than the stored ones before the gateway is not ready, because
    the store cannot be reached or others write faster than this process reads. `inf`: it stays ready."""
    wait_timeout_s: PositiveFloat = 5.0
    """How long a writing call with `x-serac-wait: all` waits for the other gateways."""


REDACTED_BY_DEFAULT = (
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    r"\b(?:sk|pk|rk|ghp|gho|xox[abp]|AKIA)[-_A-Za-z0-9]{12,}",
    r"(?i:\b(?:bearer|password|passwd|secret|token|api[ _-]?key)\b\s*(?:is|:|=)?\s*)\S+",
    r"\+?\d(?:[ ./()-]?\d){6,}",
    r"\b(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{24,}\b",
)
"""E-mail addresses, keys of known services, what follows a word like "password", seven digits or more (phone,
account and card numbers, also grouped), and long random words."""


class TrafficConfig(_Section, frozen=True, kw_only=True):
    """The record of recent queries that previews are made with. Off unless a namespace is named."""

    namespaces: tuple[str, ...] = ()
    """Whose queries are recorded; "*": all."""
    max_queries: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000
    """Kept of a namespace: the latest."""
    ttl_s: Annotated[int, msgspec.Meta(ge=1)] = 86_400
    """A query is forgotten after so long."""
    redact: tuple[str, ...] = REDACTED_BY_DEFAULT
    """Regular expressions; what they find is not recorded. A list replaces the default one."""


class KeyHeader(StrEnum):
    """Where an upstream looks for its key."""

    AUTHORIZATION = "authorization"
    """As a bearer token."""
    X_API_KEY = "x-api-key"
    """Anthropic's."""
    API_KEY = "api-key"
    """Azure's."""


class ForwardedStyle(StrEnum):
    """How an upstream is told for whom it is asked."""

    NONE = "none"
    """Not by us; what the client's side sent passes as it is."""
    FORWARDED = "forwarded"
    """`Forwarded: for=…;host=…;proto=…` (RFC 7239)."""
    X_FORWARDED = "x-forwarded"
    """X-Forwarded-For, -Host and -Proto."""


class UpstreamConfig(_Section, frozen=True, kw_only=True):
    """The base model's server."""

    url: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """Base URL up to and with /v1; None: the embedded base model."""
    connect_timeout_s: PositiveFloat = 10.0
    response_timeout_s: PositiveFloat = 600.0
    """From the request's last byte to the response's headers."""
    chunk_timeout_s: PositiveFloat = 300.0
    """The longest gap between two chunks of a response. The total is unlimited."""
    max_connections: PositiveInt = 1_000
    key_header: KeyHeader = KeyHeader.AUTHORIZATION
    """Where it wants the key that the gateway sends in the client's place."""
    forwarded: ForwardedStyle = ForwardedStyle.NONE
    """Whether it is told the client's address, and the host and scheme that the client asked for."""
    proxy: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """An HTTP proxy on the way there."""
    ca_file: str | None = None
    """PEM file of the authorities that may have signed its certificate; None: the system's."""
    breaker_failures: PositiveInt = 10
    """After so many failures in a row (no connection, no answer in time) it is left alone for a while."""
    breaker_pause_s: PositiveFloat = 5.0
    """So long, in which requests are refused at once; then one request tries it."""


class NamedUpstreamConfig(UpstreamConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another server, for some models."""

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Names as requests have them; `*` stands for any characters."""


class ModelsConfig(_Section, frozen=True, kw_only=True):
    """Which models decide and answer."""

    encoder: str | None = None
    """A sentence-transformers id or path; None: the embedded all-MiniLM-L6-v2."""
    scope_classifier: str | None = None
    """A folder that training wrote; None: the shipped one."""
    counterfactual: str | None = None
    """A causal LM id or path, or the name of a model at `counterfactual_url`; None: the embedded Gemma 3
    270M."""
    counterfactual_adapter: str | None = None
    """A folder with an adapter, trained on our prompt, for that model; None: the shipped one for the embedded
    Gemma, and examples in the prompt for any other model."""
    counterfactual_url: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """An OpenAI-compatible server, up to and with /v1, whose `counterfactual` answers instead of one here."""
    decision_threads: PositiveInt = 2
    answer_threads: PositiveInt = 1
    max_queued_answers: PositiveInt = 32
    """In-scope requests beyond these wait for no answer: the failure policy applies."""
    max_answer_tokens: PositiveInt = 64
    """Beside the edit's own target, which is said whole unless the client asks for less."""
    answer_timeout_s: PositiveFloat = 30.0


class NamespaceRouting(_Section, frozen=True, kw_only=True):
    """What a namespace has otherwise than the rest; None: as the rest."""

    composite: CompositePolicy | None = None
    conflicts: ConflictPolicy | None = None


_LIKE_THE_REST = NamespaceRouting()


class RoutingConfig(_Section, frozen=True, kw_only=True):
    """How requests are decided."""

    candidates: Annotated[int, msgspec.Meta(ge=1, le=8)] = 8
    scope_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """None: the one calibrated with the classifier."""
    depends_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """From which probability on an answer counts as depending on an edit, where `composite` is
    in_context_for_composite; None: the one calibrated with the classifier."""
    speculate: bool = False
    """Ask the upstream while the decision is made, and call it off where an edit answers: no decision is
    waited for, and what is called off may cost."""
    on_failure: FailurePolicy = FailurePolicy.OPEN
    composite: CompositePolicy = CompositePolicy.COUNTERFACTUAL_ONLY
    conflicts: ConflictPolicy = ConflictPolicy.NEWEST_WINS
    namespaces: dict[str, NamespaceRouting] = {}

    def composite_of(self, namespace: str) -> CompositePolicy:
        """What happens in `namespace` to requests that take more than one edit."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).composite
        return self.composite if own is None else own

    def conflicts_of(self, namespace: str) -> ConflictPolicy:
        """What happens in `namespace` to edits that contradict others."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).conflicts
        return self.conflicts if own is None else own


class MetricsConfig(_Section, frozen=True, kw_only=True):
    """What /metrics tells Prometheus, and whom."""

    open: bool = False
    """Whether it is told without an API key where keys are demanded, because only Prometheus gets there."""
    namespaces: bool = True
    """Whether counts carry the name of their namespace."""
    max_namespaces: PositiveInt = 100
    """So many at most; further ones are counted together as "other"."""


class FeedbackConfig(_Section, frozen=True, kw_only=True):
    """Reports on requests. The text of a query is kept where `traffic` records it."""

    remembered_requests: PositiveInt = 10_000
    """The latest that were decided on; only these can be reported on."""
    max_reports: PositiveInt = 10_000
    """Kept of a namespace: the latest."""


class TracingConfig(_Section, frozen=True, kw_only=True):
    """OpenTelemetry traces, if the extra `otel` is installed."""

    endpoint: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """A collector's base URL for OTLP over HTTP; None: no traces."""
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Of requests that come without a trace; one that comes with a trace is sampled as that is."""
    service_name: str = "serac_gateway"


class LogFormat(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """One object."""


class LogLevel(StrEnum):
    """From which level on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LoggedRequests(StrEnum):
    """Which requests of /v1 leave a line in the log."""

    ALL = "all"
    DECIDED = "decided"
    """Those that were decided on: not those of other endpoints or of namespaces without edits."""
    NONE = "none"


class LoggingConfig(_Section, frozen=True, kw_only=True):
    """The log, on stderr."""

    format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO
    requests: LoggedRequests = LoggedRequests.ALL
    content: bool = False
    """Whether the line of a request holds the query that was decided on."""


class GatewayConfig(_Section, frozen=True, kw_only=True):
    """The whole tree."""

    data_dir: str | None = None
    """None: the user's XDG data folder."""
    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    store: StoreConfig = StoreConfig()
    upstream: UpstreamConfig = UpstreamConfig()
    """Where requests go whose model no other upstream names."""
    upstreams: dict[str, NamedUpstreamConfig] = {}
    """By names of your own: the first whose models name a request's gets it."""
    models: ModelsConfig = ModelsConfig()
    routing: RoutingConfig = RoutingConfig()
    traffic: TrafficConfig = TrafficConfig()
    metrics: MetricsConfig = MetricsConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    tracing: TracingConfig = TracingConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def data_path(self) -> Path:
        """The data folder."""
        return Path(self.data_dir or platformdirs.user_data_dir("serac_gateway")).expanduser()

    @property
    def demands_keys(self) -> bool:
        """Whether who calls needs an API key."""
        return not self.is_loopback if self.access.required is None else self.access.required

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the gateway. A name other than localhost may lead anywhere."""
        host = self.server.host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host.lower() == "localhost"


def upstream_api_key_variable(name: str | None) -> str:
    """The environment variable that holds the key of the upstream of that name; None: of `upstream`."""
    if name is None:
        return UPSTREAM_API_KEY_VARIABLE
    return f"{UPSTREAM_API_KEY_VARIABLE}_{re.sub('[^A-Z0-9]', '_', name.upper())}"
