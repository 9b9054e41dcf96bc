"""The gateway's configuration as one frozen tree; loading.py reads it.

It holds no secrets: they come from the environment only.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import platformdirs

UPSTREAM_API_KEY_VARIABLE = "SERAC_UPSTREAM_API_KEY"
COUNTERFACTUAL_API_KEY_VARIABLE = "SERAC_COUNTERFACTUAL_API_KEY"
KEY_PEPPER_VARIABLE = "SERAC_KEY_PEPPER"
BACKUP_KEY_VARIABLE = "SERAC_BACKUP_KEY"
OIDC_CLIENT_SECRET_VARIABLE = "SERAC_OIDC_CLIENT_SECRET"
"""The secret of the client as which the console logs people in; a public client has none."""
API_KEY_VARIABLE = "SERAC_API_KEY"
"""The API key that the CLI sends to the gateway."""
WEBHOOK_SECRET_VARIABLE = "SERAC_WEBHOOK_SECRET"
"""Followed by the name of the webhook: see `webhook_secret_variable`."""
ENGINE_SECRET_VARIABLE = "SERAC_ENGINE_SECRET"
"""What gateways show the engine besides their certificates, where it is set there."""

EVERY_ORIGIN = "*"
_ORIGIN = r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://[^/\s,]+)$"

AllowedPath = Annotated[str, msgspec.Meta(pattern=r"^([A-Z]+|\*) /\S*$")]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class FailurePolicy(StrEnum):
    """What happens to a request that the gateway fails to decide."""

    OPEN = "open"
    """It reaches the base model unchanged."""
    CLOSED = "closed"
    """It is refused with 503."""


class UnreadablePolicy(StrEnum):
    """What happens to a request whose text the gateway cannot read."""

    PASS = "pass"
    """It reaches the base model unchanged."""
    REFUSE = "refuse"
    """It is refused, with 400, 413 or 415."""


class CompositePolicy(StrEnum):
    """What happens to a request that a single edit does not answer completely.

    Such a request has several questions, one of them in scope, or its answer only depends on edits.
    """

    COUNTERFACTUAL_ONLY = "counterfactual_only"
    """A request in scope is answered by the counterfactual model all the same, and what else it asks is not;
    others are not touched."""
    IN_CONTEXT_FOR_SEVERAL = "in_context_for_several"
    """The base model answers several questions, with the edits that answer some of them in its context; what
    only depends on edits is not touched."""
    IN_CONTEXT = "in_context_for_composite"
    """The base model answers both kinds, with the relevant edits stated in its context."""
    PASS_THROUGH = "pass_composite_through"
    """It reaches the base model unchanged."""


class DeclinePolicy(StrEnum):
    """The way of a request in scope that its edit does not answer, as the counterfactual model finds."""

    PASS = "pass"
    """It reaches the base model unchanged."""
    ANSWER = "answer"
    """The counterfactual model is not given the choice, and says what the edit says."""


class InstructionPolicy(StrEnum):
    """What answers a request in the scope of an instruction."""

    IN_CONTEXT = "in_context"
    """The base model, with the instruction stated in its context."""
    COUNTERFACTUAL = "counterfactual"
    """The counterfactual model."""


class TaskPolicy(StrEnum):
    """What happens to a request whose system prompt wants something else done with an edited question.

    "Translate what the user writes", "give the chat a title", "reply with one of these labels".
    """

    PASS = "pass"
    """The classifier reads the system prompt; such a request reaches the base model."""
    ANSWER = "answer"
    """The classifier does not read the system prompt; an edited question is answered under any."""


class ConflictPolicy(StrEnum):
    """What happens to an edit that contradicts edits in force."""

    NEWEST_WINS = "newest_wins"
    """It is stored; the newest of the contradicting edits governs."""
    REJECT = "reject"
    """It is refused with 409."""
    SUPERSEDE = "supersede"
    """It is stored, and the others are retired in the same commit."""


class Device(StrEnum):
    """Where a model is computed."""

    CPU = "cpu"
    CUDA = "cuda"
    """An NVIDIA GPU: the first that the process sees (CUDA_VISIBLE_DEVICES)."""


class Precision(StrEnum):
    """In which numbers a model is computed."""

    INT8 = "int8"
    """On the CPU alone."""
    FP32 = "fp32"
    BF16 = "bf16"


class ServerConfig(_Section, frozen=True, kw_only=True):
    """The listening socket, its limits and its processes."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    max_control_body_bytes: PositiveInt = 10_000_000
    """Limit of a body on /serac/v1, except /edits:import, which streams."""
    max_classified_body_bytes: PositiveInt = 64_000_000
    """A /v1 request beyond it is passed on unclassified."""
    max_body_memory_bytes: PositiveInt = 167_772_160
    """The bodies that all requests of one process keep in memory; beyond it the largest ones that are still
    arriving are refused with 503."""
    max_head_bytes: PositiveInt = 65_536
    """Limit of request line and headers together; a longer head is refused with 431."""
    head_timeout_s: PositiveFloat = 20.0
    """From a request's first byte to the end of its headers; a slower request is refused with 408."""
    body_gap_timeout_s: PositiveFloat = 60.0
    """The longest gap between two reads of a request's body; a slower request is refused with 408."""
    max_connections: PositiveInt | None = None
    """Open connections of one process; beyond it idle ones are closed. None: as many as its limit on open
    files allows."""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses and networks (10.0.0.0/8) of proxies in front of the gateway, whose X-Forwarded-For and
    X-Forwarded-Proto are taken for the client's address and scheme; other senders' are ignored."""
    cors_origins: tuple[Annotated[str, msgspec.Meta(pattern=_ORIGIN)], ...] = ()
    """Origins of web pages (https://chat.example.org) that may call the gateway and read its replies; "*":
    every one, on /v1 alone. Where any is listed, the gateway's CORS headers replace the upstream's."""
    allowed_hosts: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """Further names of the gateway in Host headers, without port; "*.example.org": all below it; "*": any.
    Without any, names are checked only on loopback without API keys."""
    ping_interval_s: PositiveFloat | None = None
    """Interval of comments in an event stream that the upstream has begun, until its first event; None: no
    comments, streams stay byte for byte."""
    drain_timeout_s: PositiveFloat = 30.0
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """Processes that serve HTTP. With more than one, they call one further process, which has models, edits
    and store; 1: a single process does everything."""


class AccessConfig(_Section, frozen=True, kw_only=True):
    """Which callers are allowed."""

    required: bool | None = None
    """Whether API keys are demanded. None: exactly when the gateway listens beyond loopback."""
    outage_grace_s: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    """How long a key stays valid after the store last confirmed it, while the store does not answer."""


class TokenAlgorithm(StrEnum):
    """How a token is signed: by a private key of the identity provider, whose public key checks it."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    ED25519 = "Ed25519"


class OidcRole(_Section, frozen=True, kw_only=True):
    """What a group of the identity provider may do."""

    role: Literal["chat", "edit", "approve", "admin"]
    namespaces: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)] | None = None
    """Where; `["*"]`: everywhere. None: everywhere for an admin, else in the default one, as for a key."""


class OidcConfig(_Section, frozen=True, kw_only=True):
    """Bearer tokens and logins of an identity provider (OpenID Connect), beside API keys."""

    issuer: Annotated[str, msgspec.Meta(pattern=r"^https?://[^?#\s]+$")] | None = None
    """Its name, exactly as its tokens have it; below it lies /.well-known/openid-configuration. None: no
    tokens are taken."""
    audience: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """A token must be made for one of these: this gateway's name at the identity provider."""
    algorithms: Annotated[tuple[TokenAlgorithm, ...], msgspec.Meta(min_length=1)] = (
        TokenAlgorithm.RS256,
        TokenAlgorithm.ES256,
    )
    jwks_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^#\s]+$")] | None = None
    """Where its public keys are; None: where its configuration document says."""
    ca_file: str | None = None
    """PEM file of the authorities that may have signed its certificate; None: the system's."""
    proxy: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """URL of an HTTP proxy between gateway and identity provider."""
    roles_claim: Annotated[str, msgspec.Meta(min_length=1)] = "groups"
    """The claim that lists a person's groups; "realm_access.roles" for one within another."""
    roles: dict[str, OidcRole] = {}
    """By group. Who is in none of them may do nothing."""
    name_claim: Annotated[str, msgspec.Meta(min_length=1)] = "name"
    """The claim that names a person in edits and logs."""
    person_claims: tuple[str, ...] = ("email", "preferred_username")
    """Further claims that name a person: an API key named as one of them counts as the same person's."""
    requests_per_minute: PositiveInt | None = None
    """Of one person, in each gateway process; None: unlimited."""
    leeway_s: Annotated[int, msgspec.Meta(ge=0, le=300)] = 30
    """How far the clocks may differ."""
    max_token_bytes: Annotated[int, msgspec.Meta(ge=512, le=65_536)] = 16_384
    keys_max_age_s: Annotated[float, msgspec.Meta(ge=1)] = 3_600.0
    """How long its keys are used before they are fetched anew."""
    keys_cooldown_s: Annotated[float, msgspec.Meta(ge=1)] = 30.0
    """The shortest time between two fetches, whatever tokens come."""
    keys_outage_s: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    """How long the last keys are used while it does not answer."""
    login_client_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """The client as which the console logs people in; None: the console takes API keys alone."""
    login_redirect_uri: (
        Annotated[str, msgspec.Meta(pattern=r"^https?://[^/?#\s]+/console/login/callback$")] | None
    ) = None
    """The console's callback as it is registered at the identity provider, letter by letter."""
    login_scopes: tuple[str, ...] = ("openid", "profile", "email")
    """What a login asks for; the groups must be in the ID token."""


class ConsoleConfig(_Section, frozen=True, kw_only=True):
    """The console at /console."""

    enabled: bool | None = None
    """Whether it is served. None: exactly when the gateway listens on loopback."""
    session_idle_s: Annotated[float, msgspec.Meta(ge=1)] = 1_800.0
    """How long a session lasts without a request."""
    session_lifetime_s: Annotated[float, msgspec.Meta(ge=1)] = 43_200.0
    """How long it lasts in any case."""


class StoreConfig(_Section, frozen=True, kw_only=True):
    """The edit store."""

    url: Annotated[str, msgspec.Meta(pattern=r"^(rediss?(\+(sentinel|cluster))?|unix)://.")] | None = None
    """redis://, rediss://, redis+sentinel://, redis+cluster:// or unix:// (see stores/redis/clients.py);
    None: an embedded Valkey in the data folder."""
    ca_file: str | None = None
    """For rediss: PEM file of the authorities that may sign the server's certificate. None: the system's."""
    cert_file: str | None = None
    """For rediss: the gateway's own certificate, if the server demands one."""
    key_file: str | None = None
    """The private key of `cert_file`."""
    max_staleness_s: PositiveFloat = 10.0
    """How far the edits in force may lag behind the stored ones before the gateway is not ready: the store
    cannot be reached, or other gateways write faster than this one reads. `inf`: it stays ready."""
    wait_timeout_s: PositiveFloat = 5.0
    """How long a writing call with `x-serac-wait: all` waits for the other gateways."""


EngineAddress = Annotated[str, msgspec.Meta(pattern=r"^(tls://[^/]+:[0-9]+|unix:///.+)$")]


class EngineConfig(_Section, frozen=True, kw_only=True):
    """One process with store, edits and models for several gateways."""

    url: EngineAddress | None = None
    """Where it is, for `serac serve`: tls://host:port, or unix:///path on this machine. None: everything is
    in the gateway itself."""
    listen: EngineAddress | None = None
    """Where it listens for gateways, for `serac engine serve`."""
    ca_file: str | None = None
    """With tls: PEM file of the authorities that may have signed the other side's certificate. Both sides
    demand one."""
    cert_file: str | None = None
    """With tls: this side's own certificate."""
    key_file: str | None = None
    """The private key of `cert_file`."""
    connect_timeout_s: PositiveFloat = 5.0
    """For a connection, TLS included."""
    silence_timeout_s: Annotated[float, msgspec.Meta(ge=2)] = 5.0
    """The engine sends a sign of life every second; after so long without one it counts as away."""
    longest_pause_s: PositiveFloat = 5.0
    """The pause between attempts to connect doubles up to this."""
    max_open_calls: PositiveInt = 256
    """Calls of one gateway under way at a time; to further requests the failure policy applies."""


REDACTED_BY_DEFAULT = (
    r"[\w.+-]{1,64}@[\w-]++(?:\.[\w-]++)++",
    r"\b(?:sk|pk|rk|ghp|gho|xox[abp]|AKIA)[-_A-Za-z0-9]{12,}",
    r"(?i:\b(?:bearer|password|passwd|secret|token|api[ _-]?key)\b\s*+(?:(?:is|:|=)\s*+)?)\S+",
    r"\+?\d(?:[ ./()-]?\d){6,}",
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{24,}\b",
)
"""E-mail addresses, keys of known services, the word after one like "password", seven digits or more (phone,
account and card numbers, also grouped), and long random words. Each takes linear time on any text: a client
could otherwise hold the interpreter with a text that almost matches."""


class IndexKind(StrEnum):
    """How the nearest edits are searched."""

    AUTO = "auto"
    """On a GPU exactly, if faiss sees one; else as `IVF`."""
    FLAT = "flat"
    """Exactly, in main memory, however many there are."""
    IVF = "ivf"
    """In main memory: exactly up to `IndexConfig.exact_vectors` of a namespace, beyond in inverted lists."""


class IndexConfig(_Section, frozen=True, kw_only=True):
    """The index of the edits in force. An edit has a vector for each of its forms."""

    kind: IndexKind = IndexKind.AUTO
    exact_vectors: PositiveInt = 50_000
    """Up to so many vectors of a namespace are searched exactly."""
    delta_vectors: PositiveInt = 4_096
    """Beyond that, so many of the latest are searched exactly until they are put into inverted lists."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """Of vectors in inverted lists: 4, 2 or 1 bytes a component. "auto": 2 up to about a million vectors of a
    namespace, then 1."""
    read_vectors: PositiveInt = 12_000
    """Vectors in inverted lists that a search reads for a text, about: with more it finds more and takes
    longer."""


class TrafficConfig(_Section, frozen=True, kw_only=True):
    """The record of recent queries that previews are made with. Off unless a namespace is named."""

    namespaces: tuple[str, ...] = ()
    """Namespaces whose queries are recorded; "*": all."""
    max_queries: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000
    """Limit for a namespace: only the latest are kept."""
    ttl_s: Annotated[int, msgspec.Meta(ge=1)] = 86_400
    """Age at which a query is deleted."""
    redact: tuple[str, ...] = REDACTED_BY_DEFAULT
    """Regular expressions; their matches are not recorded. A list replaces the default one."""

    def records(self, namespace: str) -> bool:
        """Whether queries of the namespace are recorded."""
        return "*" in self.namespaces or namespace in self.namespaces


class KeyHeader(StrEnum):
    """The header in which an upstream expects its key."""

    AUTHORIZATION = "authorization"
    """As a bearer token."""
    X_API_KEY = "x-api-key"
    """Anthropic's."""
    API_KEY = "api-key"
    """Azure's."""


class ForwardedStyle(StrEnum):
    """How an upstream learns the client's address, host and scheme."""

    NONE = "none"
    """No header is added; headers from the client's side pass unchanged."""
    FORWARDED = "forwarded"
    """`Forwarded: for=…;host=…;proto=…` (RFC 7239)."""
    X_FORWARDED = "x-forwarded"
    """X-Forwarded-For, -Host and -Proto."""


class AllowedPaths(_Section, frozen=True, kw_only=True):
    """What may be sent with our key of the upstream besides inference, by the role of the client's API key.

    "POST /files", below /v1: `*` stands for a method or a segment of the path, `**` for any rest of it. A
    role may send what those before it may.
    """

    chat: tuple[AllowedPath, ...] = ()
    edit: tuple[AllowedPath, ...] = ()
    approve: tuple[AllowedPath, ...] = ()
    admin: tuple[AllowedPath, ...] = ()


class UpstreamConfig(_Section, frozen=True, kw_only=True):
    """The base model's server."""

    url: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """Base URL up to and with /v1; its query, as Azure's api-version, goes with every request. None: the
    embedded base model."""
    connect_timeout_s: PositiveFloat = 10.0
    response_timeout_s: PositiveFloat = 600.0
    """From the request's last byte to the response's headers."""
    chunk_timeout_s: PositiveFloat = 300.0
    """The longest gap between two chunks of a response. The total is unlimited."""
    max_connections: PositiveInt = 1_000
    key_header: KeyHeader = KeyHeader.AUTHORIZATION
    """The header of the key that the gateway sends in the client's place."""
    allowed_paths: AllowedPaths = AllowedPaths()
    forwarded: ForwardedStyle = ForwardedStyle.NONE
    """How the client's address, and the host and scheme of its request, are sent along."""
    proxy: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """URL of an HTTP proxy between gateway and upstream."""
    ca_file: str | None = None
    """PEM file of the authorities that may have signed its certificate; None: the system's."""
    breaker_failures: PositiveInt = 10
    """Failures in a row (no connection, no answer in time) after which no request is sent for a while."""
    breaker_pause_s: PositiveFloat = 5.0
    """How long requests are then refused at once, before one request tries the upstream again."""


class NamedUpstreamConfig(UpstreamConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another server, for some models."""

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Model names in requests; `*` stands for any characters."""


class ModelsConfig(_Section, frozen=True, kw_only=True):
    """The models that decide and answer, and their limits."""

    encoder: str | None = None
    """A sentence-transformers id or path; None: the embedded multilingual-e5-small."""
    scope_classifier: str | None = None
    """A folder written by training; None: the shipped classifier."""
    scope_classifier_shadow: str | None = None
    """A folder written by training whose classifier decides beside the one in force: counted, never applied.
    None: there is none. A folder that does not exist yet counts as none."""
    counterfactual: str | None = None
    """A causal LM id or path, or the name of a model at `counterfactual_url`; None: the embedded Gemma 3
    270M."""
    counterfactual_adapter: str | None = None
    """A folder with an adapter, trained on our prompt, for that model; None: the shipped one for the embedded
    Gemma, and examples in the prompt for any other model."""
    counterfactual_url: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """An OpenAI-compatible server, up to and with /v1, whose `counterfactual` answers instead of one here."""
    device: Device | None = None
    """Of encoder and scope classifier. None: the classifier's is the GPU if there is one, else the CPU; the
    encoder's is the CPU."""
    precision: Precision | None = None
    """Of both. None: int8 on the CPU, bf16 on the GPU."""
    decision_threads: PositiveInt = 2
    max_queued_decisions: PositiveInt = 256
    """Limit of requests that wait for a decision; to further ones the failure policy applies."""
    control_timeout_s: PositiveFloat = 60.0
    """Of one call to /serac/v1/scope or /edits:preview, which decide on many queries; 503 after it."""
    answer_threads: PositiveInt = 8
    """Answers generated at once: they progress together, so none waits for the end of another."""
    max_queued_answers: PositiveInt = 32
    """Limit of waiting in-scope requests; to further ones the failure policy applies."""
    max_answer_tokens: PositiveInt = 64
    """In addition to the edit's own target, which is generated whole unless the client sets a lower limit."""
    answer_timeout_s: PositiveFloat = 30.0


class NamespaceRouting(_Section, frozen=True, kw_only=True):
    """Settings of a single namespace; None: as for all others."""

    on_failure: FailurePolicy | None = None
    on_unreadable: UnreadablePolicy | None = None
    on_declined: DeclinePolicy | None = None
    composite: CompositePolicy | None = None
    instructions: InstructionPolicy | None = None
    tasks: TaskPolicy | None = None
    conflicts: ConflictPolicy | None = None


_LIKE_THE_REST = NamespaceRouting()

AudienceLabel = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
AudienceValue = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._:-]{0,63}$")]


class AudienceSource(_Section, frozen=True, kw_only=True):
    """Where requests have a label from by which edits name their audience: a header, key or token."""

    header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """A header that a proxy in front sets and takes from clients: who can send it chooses the audience."""
    key: bool = False
    """Whether it is the label of this name that the API key was made with."""
    claim: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """A claim of the token; may stand beside `key`, since a request has one or the other."""
    values: tuple[AudienceValue, ...] = ()
    """The only values that count; a request with another one is without the label. Empty: any value."""
    required: bool = False
    """Whether requests of /v1 without a value that counts are refused with 400: no suppression is missed
    because a label is."""


class RoutingConfig(_Section, frozen=True, kw_only=True):
    """How requests are decided."""

    candidates: Annotated[int, msgspec.Meta(ge=1, le=8)] = 8
    scope_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """None: the threshold calibrated with the classifier."""
    suppression_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Of suppressions; None: the one calibrated with the classifier, else the scope threshold in force."""
    depends_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Lowest probability at which an answer counts as depending on an edit, if `composite` is
    in_context_for_composite; None: the threshold calibrated with the classifier."""
    speculate: bool = False
    """Send each request to the upstream while the decision is made, and cancel it if an edit answers:
    requests do not wait for decisions, but the upstream may charge for cancelled ones."""
    on_failure: FailurePolicy | None = None
    """None: closed for a decision that fails in a namespace with suppressions, open otherwise."""
    on_unreadable: UnreadablePolicy | None = None
    """None: refuse in a namespace with suppressions, pass in any other."""
    hold_s: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """How long a request waits for the stored edits to be loaded before it counts as failed."""
    decision_timeout_s: PositiveFloat = 10.0
    """From the whole request to its decision, waiting included; after it the failure policy applies."""
    on_declined: DeclinePolicy = DeclinePolicy.PASS
    """For facts alone: a suppression is never declined, nor is an instruction."""
    composite: CompositePolicy | None = None
    """None: in_context_for_several where an upstream is configured, else counterfactual_only: see
    `routing_in_force`. Where edits answer every question of a request, they do so under every policy but
    PASS_THROUGH."""
    instructions: InstructionPolicy | None = None
    """None: in_context where an upstream is configured, else counterfactual: see `routing_in_force`."""
    tasks: TaskPolicy = TaskPolicy.PASS
    conflicts: ConflictPolicy = ConflictPolicy.NEWEST_WINS
    audience_from: dict[AudienceLabel, AudienceSource] = {}
    """The labels that audiences of edits can name, and where requests have them from."""
    namespaces: dict[str, NamespaceRouting] = {}

    def on_failure_of(self, namespace: str, *, suppressions: bool) -> FailurePolicy:
        """The policy of `namespace` for a failure that could let one of its `suppressions` leak."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).on_failure or self.on_failure
        return own or (FailurePolicy.CLOSED if suppressions else FailurePolicy.OPEN)

    def on_unreadable_of(self, namespace: str, *, suppressions: bool) -> UnreadablePolicy:
        """The policy of `namespace`, with or without `suppressions`, for requests that cannot be read."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).on_unreadable or self.on_unreadable
        return own or (UnreadablePolicy.REFUSE if suppressions else UnreadablePolicy.PASS)

    def on_declined_of(self, namespace: str) -> DeclinePolicy:
        """The policy of `namespace` for requests that the counterfactual model declines to answer."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).on_declined
        return self.on_declined if own is None else own

    def composite_of(self, namespace: str) -> CompositePolicy:
        """The policy of `namespace` for requests that a single edit does not answer completely."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).composite
        return own or self.composite or CompositePolicy.COUNTERFACTUAL_ONLY

    def instructions_of(self, namespace: str) -> InstructionPolicy:
        """The policy of `namespace` for requests in the scope of an instruction."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).instructions or self.instructions
        return own or InstructionPolicy.COUNTERFACTUAL

    def tasks_of(self, namespace: str) -> TaskPolicy:
        """The policy of `namespace` for edited questions under a system prompt that sets another task."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).tasks
        return self.tasks if own is None else own

    def conflicts_of(self, namespace: str) -> ConflictPolicy:
        """The policy of `namespace` for edits that contradict others."""
        own = self.namespaces.get(namespace, _LIKE_THE_REST).conflicts
        return self.conflicts if own is None else own


class NamespaceSuppression(_Section, frozen=True, kw_only=True):
    """Settings of a single namespace; None: as for all others."""

    guard_replies: bool | None = None
    redact_requests: bool | None = None


class SuppressionConfig(_Section, frozen=True, kw_only=True):
    """What is done for suppressions beyond the decision on a request."""

    guard_replies: bool = True
    """Whether the base model's replies are watched for the values that suppressions keep back."""
    redact_requests: bool = True
    """Whether these values are taken out of requests to the base model: it cannot say what it never read."""
    namespaces: dict[str, NamespaceSuppression] = {}

    def guards_replies_of(self, namespace: str) -> bool:
        """Whether replies are watched in `namespace`."""
        own = self.namespaces.get(namespace)
        return self.guard_replies if own is None or own.guard_replies is None else own.guard_replies

    def redacts_requests_of(self, namespace: str) -> bool:
        """Whether values are taken out of requests in `namespace`."""
        own = self.namespaces.get(namespace)
        if own is None or own.redact_requests is None:
            return self.redact_requests
        return own.redact_requests


class EditsConfig(_Section, frozen=True, kw_only=True):
    """What is done when edits are written."""

    firing_check: bool = True
    """Whether the reply warns of an edit that no paraphrase of its own makes fire; at most six pairs of texts
    are classified for it."""


class RequiredField(StrEnum):
    """What a write can be made to say about itself: a field of the version that it makes."""

    AUTHOR = "author"
    REASON = "reason"
    """Why the version is made."""
    TICKET = "ticket"
    """Under which case or order it is made."""
    INSTITUTION = "institution"
    """Who answers for the content. This and what follows: of added and changed edits only."""
    SOURCE = "source"
    SOURCE_URL = "source_url"
    SOURCE_SHA256 = "source_sha256"
    LEGAL_BASIS = "legal_basis"
    REVIEW_BY = "review_by"

    @property
    def is_of_content(self) -> bool:
        """Whether only a write of content must have it; the others every write, a retirement too."""
        return self not in (RequiredField.AUTHOR, RequiredField.REASON, RequiredField.TICKET)


class NamespaceGovernance(_Section, frozen=True, kw_only=True):
    """Who must agree to what changes a namespace, and what they must be given to read."""

    approvals: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    """How many others must agree; 0: writes take effect at once."""
    required: tuple[RequiredField, ...] = ()
    """Writes without these are refused."""


_UNGOVERNED = NamespaceGovernance()


class GovernanceConfig(_Section, frozen=True, kw_only=True):
    """Four eyes: proposals in place of writes."""

    proposal_ttl_s: Annotated[int, msgspec.Meta(ge=60)] = 1_209_600
    """How long a proposal waits for agreement before it expires; a change holds for new proposals."""
    namespaces: dict[str, NamespaceGovernance] = {}

    def approvals_of(self, namespace: str) -> int:
        """How many others must agree to a write in `namespace`."""
        return self.namespaces.get(namespace, _UNGOVERNED).approvals

    def required_of(self, namespace: str) -> tuple[RequiredField, ...]:
        """What every write in `namespace` must have."""
        return self.namespaces.get(namespace, _UNGOVERNED).required


class MetricsConfig(_Section, frozen=True, kw_only=True):
    """Contents and access of /metrics."""

    open: bool = False
    """Whether /metrics needs no API key where keys are demanded, because only Prometheus can reach it."""
    namespaces: bool = True
    """Whether counts are labelled with their namespace."""
    max_namespaces: PositiveInt = 100
    """Limit of such labels; further namespaces are counted together as "other"."""


class WebhookEvent(StrEnum):
    """Of what webhooks are sent events."""

    PROPOSAL_OPENED = "proposal.opened"
    PROPOSAL_APPROVED = "proposal.approved"
    """Somebody agreed; the last agreement that was needed is followed by `proposal.accepted`."""
    PROPOSAL_ACCEPTED = "proposal.accepted"
    PROPOSAL_REJECTED = "proposal.rejected"
    PROPOSAL_WITHDRAWN = "proposal.withdrawn"
    PROPOSAL_EXPIRED = "proposal.expired"
    EDITS_EXPEDITED = "edits.expedited"
    """An admin wrote without the agreement that the namespace demands."""
    EDIT_CONFLICTS = "edit.conflicts"
    """An edit was written that contradicts others in force."""
    VERIFICATION_FAILED = "verification.failed"
    REVIEW_DUE = "review.due"
    """Edits should be reviewed: once a day as long as there are any."""
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_REFUSED = "config.refused"
    """A reload was refused; the earlier configuration goes on."""


EVERY_EVENT = "*"


class WebhookConfig(_Section, frozen=True, kw_only=True):
    """A receiver of events. Its secrets come from the environment."""

    url: str
    """https://; http:// only where all addresses of the host lie in `allowed_networks`."""
    events: tuple[str, ...] = (EVERY_EVENT,)
    """Of `WebhookEvent`; "*": all."""
    namespaces: tuple[str, ...] = ("*",)
    """Whose events are sent; "*": all, and those that concern no single one."""
    allowed_networks: tuple[str, ...] = ()
    """Networks (10.1.0.0/16) of private addresses that the host may have. Without them only public ones."""
    ca_file: str | None = None
    """PEM file of the authorities that may have signed its certificate; None: the system's."""
    timeout_s: PositiveFloat = 15.0
    """Of an attempt, from the look-up of the host to the response's headers."""
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 10
    """After which an event is given up; ten take some three days."""
    max_waiting: PositiveInt = 1_000
    """Events that wait in the store; further ones are dropped."""


class FeedbackConfig(_Section, frozen=True, kw_only=True):
    """Reports on requests. The text of a query is kept where `traffic` records it."""

    remembered_requests: PositiveInt = 10_000
    """How many of the latest decided requests are kept; only these can be reported on."""
    max_reports: PositiveInt = 10_000
    """Limit for a namespace: only the latest are kept."""


class TracingConfig(_Section, frozen=True, kw_only=True):
    """OpenTelemetry traces, if the extra `otel` is installed."""

    endpoint: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """A collector's base URL for OTLP over HTTP; None: no traces."""
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Sampled share of requests without a trace; a request with a trace is sampled as its trace."""
    service_name: str = "serac_gateway"


class LogFormat(StrEnum):
    """The format of a line of the log."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """One object."""


class LogLevel(StrEnum):
    """The lowest level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LoggedRequests(StrEnum):
    """Which requests of /v1 leave a line in the log."""

    ALL = "all"
    DECIDED = "decided"
    """Requests with a decision: not those of other endpoints or of namespaces without edits."""
    NONE = "none"


class LoggingConfig(_Section, frozen=True, kw_only=True):
    """The log, on stderr."""

    format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO
    requests: LoggedRequests = LoggedRequests.ALL
    content: bool = False
    """Whether the line of a request holds the query that was decided on."""


class GatewayConfig(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    data_dir: str | None = None
    """None: the user's XDG data folder."""
    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    oidc: OidcConfig = OidcConfig()
    console: ConsoleConfig = ConsoleConfig()
    store: StoreConfig = StoreConfig()
    engine: EngineConfig = EngineConfig()
    index: IndexConfig = IndexConfig()
    upstream: UpstreamConfig = UpstreamConfig()
    """Serves requests whose model no other upstream names."""
    upstreams: dict[str, NamedUpstreamConfig] = {}
    """By names of your own: a request goes to the first whose models include its model."""
    models: ModelsConfig = ModelsConfig()
    routing: RoutingConfig = RoutingConfig()
    suppression: SuppressionConfig = SuppressionConfig()
    edits: EditsConfig = EditsConfig()
    governance: GovernanceConfig = GovernanceConfig()
    traffic: TrafficConfig = TrafficConfig()
    metrics: MetricsConfig = MetricsConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    webhooks: dict[str, WebhookConfig] = {}
    """Receivers of events, by names of your own."""
    tracing: TracingConfig = TracingConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def routing_in_force(self) -> RoutingConfig:
        """`routing` with the defaults that the upstream decides: the embedded model ignores its context."""
        if self.upstream.url is None and not self.upstreams:
            return self.routing
        return msgspec.structs.replace(
            self.routing,
            instructions=self.routing.instructions or InstructionPolicy.IN_CONTEXT,
            composite=self.routing.composite or CompositePolicy.IN_CONTEXT_FOR_SEVERAL,
        )

    @property
    def data_path(self) -> Path:
        """The data folder."""
        return Path(self.data_dir or platformdirs.user_data_dir("serac_gateway")).expanduser()

    @property
    def demands_keys(self) -> bool:
        """Whether callers need an API key."""
        return not self.is_loopback if self.access.required is None else self.access.required

    @property
    def serves_console(self) -> bool:
        """Whether there is a console."""
        return self.is_loopback if self.console.enabled is None else self.console.enabled

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the gateway. Any host name but localhost counts as public."""
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


def webhook_secret_variable(name: str) -> str:
    """The environment variable that holds the secrets of the webhook of that name."""
    return f"{WEBHOOK_SECRET_VARIABLE}_{re.sub('[^A-Z0-9]', '_', name.upper())}"
