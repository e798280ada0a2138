"""The shape of the configuration: what every section holds, its defaults and its bounds."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from interactd.approvals import Malformed, clean
from interactd.config.durations import seconds
from interactd.nouns import ThinkingLevel

Kind = Literal["openai-chat", "openai-responses", "anthropic", "gemini"]
BUILT_IN: Final = ("openai", "anthropic", "gemini", "ollama", "lmstudio", "vllm", "llamacpp")
RESERVED: Final = ("auto", "embedded")
KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key", "proxy-authorization"})


def check_base_url(text: str) -> str:
    """Check an address of a provider. The message never repeats it: a person may have put a key into it."""
    example = "such as https://api.example.com/v1"
    if any(ord(c) < 33 or ord(c) == 127 for c in text):
        raise ValueError(f"expected an http(s) address {example}; this one has spaces or control characters")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"expected an http(s) address {example}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"expected an http(s) address {example}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("expected an address without user name, query or fragment; put the key into api_key_env")
    return text


def _duration(value: object) -> str | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a duration such as 90m, 24h, 7d or forever")
    seconds(value)
    return value


def _env_name(text: str) -> str:
    mixed = any(c.islower() for c in text) and any(c.isupper() for c in text)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", text) or (mixed and any(c.isdigit() for c in text)):
        raise ValueError("expected the NAME of an environment variable such as GROQ_API_KEY, never the key itself")
    return text


def _headers(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if name.lower() in KEY_HEADERS:
            raise ValueError(f"{name} carries a key, and keys do not belong in this file: use api_key_env")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not value.isprintable() or not value.isascii():
            raise ValueError("expected header names and values of printable ASCII")
    return given


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 256:
        raise ValueError("expected a name of 1 to 256 printable characters")
    return text.strip()


Name = Annotated[str, AfterValidator(_one_line)]
Url = Annotated[str, AfterValidator(check_base_url)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Defaults(Section):
    """What a session gets when its creator says nothing."""

    model: Name = "auto"
    ttl: Annotated[str | float, PlainValidator(_duration)] = "24h"
    thinking_level: ThinkingLevel | None = None
    wait_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 30

    @property
    def ttl_s(self) -> float | None:
        """Lifetime of a session in seconds; `None` keeps it for ever."""
        return seconds(self.ttl)


class Provider(Section):
    """One `[providers.NAME]` table. A built-in provider's table may hold only what differs."""

    kind: Kind | None = None
    base_url: Url | None = None
    api_key_env: Annotated[str, AfterValidator(_env_name)] | None = None
    api_key_file: str | None = None
    models: list[Name] = Field(default_factory=list[str])
    default_model: Name | None = None
    context_window: Annotated[int, Field(ge=256)] | None = None
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict[str, str])
    timeout_s: Seconds = 900
    connect_timeout_s: Seconds = 10
    first_byte_timeout_s: Seconds = 300
    idle_timeout_s: Seconds = 120
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    max_running: Annotated[int, Field(ge=1, le=10_000)] | None = None
    allow_http: bool = False
    enabled: bool = True

    @model_validator(mode="after")
    def _one_key_source(self) -> Provider:
        if self.api_key_env and self.api_key_file:
            raise ValueError("expected api_key_env or api_key_file, not both")
        return self


class Embedded(Section):
    """The embedded model. `url` uses a llama-server that already runs instead of a child process; `weights` is a folder
    of weight files that were fetched by other means."""

    enabled: bool = True
    model: Name | None = None
    weights: str | None = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    idle_s: Annotated[float, Field(ge=0, le=86400 * 365, allow_inf_nan=False)] = 300
    context: Annotated[int, Field(ge=512, le=131072)] = 4096
    max_output_tokens: Annotated[int, Field(ge=16, le=131072)] = 1024
    url: Url | None = None


class Daemon(Section):
    """The per-user daemon. `idle_exit_s = 0` never leaves."""

    idle_exit_s: Annotated[float, Field(ge=0, le=86400 * 365, allow_inf_nan=False)] = 1800
    log_level: Literal["debug", "info", "warning", "error"] = "info"


Duration = Annotated[str | float, PlainValidator(_duration)]


class Retention(Section):
    """How long what is kept; `forever` until somebody deletes it. Sessions take `defaults.ttl` where `sessions` is not
    given; artifacts go with their session at the latest."""

    sessions: Duration | None = None
    artifacts: Duration = "forever"
    environments: Duration = "7d"
    exports: Duration = "7d"
    agents: Duration = "7d"
    tombstones: Duration = "90d"
    clock_grace: Duration = "1h"
    log_bytes: Annotated[int, Field(ge=10_000, le=1_000_000_000)] = 2_000_000
    log_files: Annotated[int, Field(ge=1, le=100)] = 5

    def of(self, name: str) -> float | None:
        """A time to live in seconds by its name; `None` is for ever."""
        return seconds(getattr(self, name))


class Serve(Section):
    """`interactd serve`: Streamable HTTP and SSE."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8642
    allowed_hosts: list[Name] = Field(default_factory=list[str])
    allowed_origins: list[Name] = Field(default_factory=list[str])


def _networks(given: list[str]) -> list[str]:
    for text in given:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is neither an address nor a network such as 192.168.1.0/24") from None
    return given


class Webhooks(Section):
    """Where webhooks may go besides the public internet, and who may make one that runs a command: `cli` is the command
    line only, `anyone` MCP clients too."""

    allow: Annotated[list[str], AfterValidator(_networks)] = Field(default_factory=list[str])
    commands: Literal["cli", "anyone", "off"] = "cli"


class Limits(Section):
    """How much at once, and how large. `running` and `queued` are over all sessions, `calls` is per connection."""

    running: Annotated[int, Field(ge=1, le=10_000)] = 256
    queued: Annotated[int, Field(ge=0, le=1_000_000)] = 20_000
    queued_per_session: Annotated[int, Field(ge=0, le=10_000)] = 100
    calls: Annotated[int, Field(ge=1, le=100_000)] = 256
    input_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = 8 * 1024 * 1024
    output_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = 8 * 1024 * 1024


def _approvals(given: object) -> dict[str, Any]:
    try:
        return clean(given) or {}
    except Malformed as error:
        where = error.where("").lstrip(".")
        raise ValueError(f"{where}: {error.problem}" if where else error.problem) from None


class Dispatch(Section):
    """When runs go, and how long one may take, where a turn does not say. Times of 0 are no limit."""

    lease_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 30
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    start_timeout_s: Annotated[float, Field(ge=0, le=7 * 86400, allow_inf_nan=False)] = 0
    timeout_s: Annotated[float, Field(ge=0, le=7 * 86400, allow_inf_nan=False)] = 0


class Budget(Section):
    """What all turns on this machine together may cost on one local day."""

    day_usd: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    day_tokens: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    day_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    day_seconds: Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)] | None = None

    @property
    def day(self) -> dict[str, float]:
        """By unit, only what is set."""
        given = self.model_dump(exclude_none=True)
        return {name.removeprefix("day_"): value for name, value in given.items()}


Usd = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Price(Section):
    """What a model costs, in dollars for a million tokens; cached and cache_write are as dear as input unless said."""

    input: Usd
    output: Usd
    cached: Usd | None = None
    cache_write: Usd | None = None


class Hosted(Section):
    """Assumptions for what the same would cost hosted, in dollars."""

    session_hour_usd: Usd | None = None
    sandbox_hour_usd: Usd | None = None
    gb_month_usd: Usd | None = None


def _priced(given: dict[str, Price]) -> dict[str, Price]:
    for name in given:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,39}(/\S{1,200})?", name, re.IGNORECASE):
            raise ValueError(
                f"{name[:60]!r} names no model: expected provider/name, or a provider for all of its models"
            )
    return given


def _provider_names(given: dict[str, Provider]) -> dict[str, Provider]:
    for name in given:
        if name in RESERVED or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,39}", name):
            raise ValueError(
                f"{name[:40]!r} cannot name a provider: expected small letters, digits, - and _, "
                "and neither auto nor embedded"
            )
    return given


class Config(Section):
    """The whole configuration. `Config()` is a valid one."""

    defaults: Defaults = Defaults()
    providers: Annotated[dict[str, Provider], AfterValidator(_provider_names)] = Field(
        default_factory=dict[str, Provider]
    )
    embedded: Embedded = Embedded()
    daemon: Daemon = Daemon()
    serve: Serve = Serve()
    retention: Retention = Retention()
    webhooks: Webhooks = Webhooks()
    limits: Limits = Limits()
    budget: Budget = Budget()
    prices: Annotated[dict[str, Price], AfterValidator(_priced)] = Field(default_factory=dict[str, Price])
    hosted: Hosted = Hosted()
    approvals: Annotated[dict[str, Any], PlainValidator(_approvals)] = Field(default_factory=dict[str, Any])
    """What every agent has to ask before doing, or need not ask: the only place that may loosen a policy."""
    dispatch: Dispatch = Dispatch()
    file: str | None = Field(default=None, exclude=True)
    """Where it was read from; `None` when there is no file. Not a setting."""
