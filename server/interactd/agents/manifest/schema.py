"""The shape of agent.yaml, and of the lists and maps in it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from interactd.agents.port import BUILTIN_TOOLS
from interactd.nouns import ThinkingLevel
from interactd.sandbox.egress.policy.hosts import BadHost
from interactd.sandbox.egress.policy.patterns import Pattern
from interactd.sandbox.port import Level

ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
ID_RULE: Final = "1 to 63 lower-case letters, digits, - and _, beginning and ending with a letter or digit"
RESERVED_FIELDS: Final = ("triggers", "agents")
TOOL_NAMES: Final = (
    *BUILTIN_TOOLS,
    "view_file",
    "write_file",
    "write_to_file",
    "replace_in_file",
    "replace_file_content",
    "list_dir",
    "search_files",
    "delete_file",
)
"""A function of an agent's own may not take the name of something that is built in."""
MAX_TOOLS: Final = 64
MAX_SOURCES: Final = 50
MAX_ENV: Final = 200
MAX_DOMAINS: Final = 200


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        raise ValueError(f"expected {ID_RULE}")
    return text


def one_line(text: str) -> str:
    """Check that a text is one line with something in it."""
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of printable text")
    return text.strip()


def _no_spaces(text: str) -> str:
    if not text or not text.isprintable() or any(c.isspace() for c in text):
        raise ValueError("expected a model such as openai/gpt-5, ollama/qwen3:8b or auto")
    return text


def _paragraph(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a sentence about what it is for")
    return " ".join(text.split())


def _function_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}", text):
        raise ValueError("expected a name of at most 64 letters, digits and _ . : -, beginning with a letter")
    if text in TOOL_NAMES:
        raise ValueError("expected a name that no built-in tool has")
    return text


def _parameters(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") != "object":
        raise ValueError("expected a JSON schema with `type: object`, since arguments have names")
    if not isinstance(schema.get("properties", {}), dict):
        raise ValueError("expected `properties` to be a mapping of names to schemas")
    return schema


def _target(text: str) -> str:
    plain = text.removeprefix("/workspace").lstrip("/") if text.startswith("/workspace") else text
    if not text or not text.isprintable() or (text.startswith("/") and not re.match(r"/workspace(/|$)", text)):
        raise ValueError("expected a path in the workspace, such as data/in.csv or /workspace/data")
    if ".." in plain.split("/"):
        raise ValueError("expected a path that stays in the workspace, without `..`")
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"https://[^\s/@]+/[^\s]+", text) or not text.isprintable():
        raise ValueError("expected a repository's address without user name, such as https://github.com/owner/name")
    return text


def _ref(text: str) -> str:
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise ValueError("expected a branch, tag or commit")
    return text


def _domain(text: str) -> str:
    try:
        Pattern.parse(text)
    except BadHost as error:
        raise ValueError(f"expected a domain such as example.org or *.example.org: {error}") from None
    return text


AgentId = Annotated[str, AfterValidator(_id)]
Line = Annotated[str, Field(max_length=256), AfterValidator(one_line)]
Target = Annotated[str, Field(max_length=1024), AfterValidator(_target)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class Section(BaseModel):
    """Base of all: unknown fields are errors, and nothing is converted (`"5"` is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Generation(Section):
    """`generation_config`, as `nouns.GenerationConfig` (a test holds the two equal)."""

    thinking_level: ThinkingLevel | None = None
    thinking_summaries: Literal["auto", "none"] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**31), le=2**32 - 1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=16)] | None
    ) = None
    tool_choice: Literal["auto", "any", "none"] | None = None


class Requires(Section):
    """The weakest isolation that the agent accepts (`sandbox.port.GUARANTEES`)."""

    filesystem: Level | None = None
    network: Level | None = None
    pids: Level | None = None
    memory: Level | None = None
    cpu: Level | None = None
    disk: Level | None = None
    syscalls: Level | None = None


class Limits(Section):
    """When the loop stops (`agents.port.RunLimits`)."""

    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    tokens: Count | None = None
    seconds: Annotated[float, Field(ge=1, le=604_800, allow_inf_nan=False)] | None = None


class TurnBudget(Section):
    """What something may cost (`nouns.Interaction.budget`)."""

    usd: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    seconds: Annotated[float, Field(ge=1, le=604_800, allow_inf_nan=False)] | None = None


class Budget(TurnBudget):
    """What the agent's turns of one day may cost together; `turn`: each of them."""

    turn: TurnBudget | None = None


class SandboxLimits(Section):
    """What its sandbox may use (`sandbox.port.Limits`)."""

    memory_mb: Annotated[int, Field(ge=32, le=1 << 20)] | None = None
    pids: Annotated[int, Field(ge=8, le=32_768)] | None = None
    cpu: Annotated[float, Field(ge=0.05, le=1024, allow_inf_nan=False)] | None = None
    cpu_s: Annotated[float, Field(ge=1, le=7 * 86_400, allow_inf_nan=False)] | None = None
    wall_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] | None = None
    disk_mb: Annotated[int, Field(ge=1, le=1 << 22)] | None = None
    file_mb: Annotated[int, Field(ge=1, le=1 << 22)] | None = None
    output_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] | None = None
    open_files: Annotated[int, Field(ge=16, le=65_536)] | None = None


class Environment(Section):
    """The workspace: an environment create body. Items of its lists and maps are checked one by one."""

    type: Literal["remote"] | None = None
    sources: Annotated[list[Any], Field(max_length=MAX_SOURCES)] | None = None
    env: Annotated[dict[str, Any], Field(max_length=MAX_ENV)] | None = None
    network: Any = None
    limits: SandboxLimits | None = None


class Manifest(Section):
    """agent.yaml."""

    id: AgentId
    description: Annotated[str, Field(max_length=1024), AfterValidator(_paragraph)]
    base_agent: AgentId | None = None
    shadows: bool = False
    model: Annotated[str, Field(max_length=256), AfterValidator(_no_spaces)] | None = None
    tools: Annotated[list[Any], Field(max_length=MAX_TOOLS)] | None = None
    generation_config: Generation | None = None
    environment: Environment | None = None
    requires: Requires | None = None
    limits: Limits | None = None
    budget: Budget | None = None
    approvals: Any = None


class FunctionTool(Section):
    """A function that whoever runs the agent answers (`respond`)."""

    type: Literal["function"]
    name: Annotated[str, AfterValidator(_function_name)]
    description: Annotated[str, Field(max_length=4096), AfterValidator(_paragraph)] | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_parameters)] | None = None


class BuiltinToolEntry(Section):
    """`{type: code_execution}`, as the Interactions API writes tools: the same as the bare name. What it has to ask
    before is checked by `manifest.approvals`."""

    type: Literal["code_execution", "files", "url_fetch"]
    policy: Any = None
    rules: Any = None


class InlineSource(Section):
    """A small file, written out."""

    type: Literal["inline"]
    target: Target
    content: Annotated[str, Field(max_length=1_000_000)]
    encoding: Literal["base64", "utf-8"] | None = None


class RepositorySource(Section):
    """A git repository, cloned through the environment's network rules."""

    type: Literal["repository"]
    source: Annotated[str, Field(max_length=1024), AfterValidator(_repository)]
    ref: Annotated[str, Field(max_length=250), AfterValidator(_ref)] | None = None
    target: Target | None = None


class LocalSource(Section):
    """A folder or file of this machine: copied, or seen read-only."""

    type: Literal["local"]
    source: Annotated[str, Field(min_length=1, max_length=4096)]
    target: Target | None = None
    mode: Literal["copy", "mount"] | None = None


class Reference(Section):
    """A credential by its name, in an environment variable."""

    credential: Line


class Plain(Section):
    """A plain value of an environment variable; the agent can read it."""

    value: Annotated[str, Field(max_length=32_768)]


class Allowlist(Section):
    """`network`: where the sandbox may go."""

    allowlist: Annotated[list[Any], Field(max_length=MAX_DOMAINS)]


class Domain(Section):
    """One line of it."""

    domain: Annotated[str, Field(max_length=260), AfterValidator(_domain)]
    credential: Line | None = None
    transform: Annotated[dict[str, Annotated[str, Field(max_length=8192)]], Field(max_length=32)] | None = None
