"""How a thinking level is said to each provider and model family. docs/thinking.md shows this table.

A level that a family lacks snaps to the nearest one it has (upwards when two are as near); a family without any
control gets nothing. The first pattern that fits the start of the model's name wins; names of models newer than
this file fall to the newest family's row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from interactd.nouns import THINKING_LEVELS, ThinkingLevel

ORDER = ("minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Family:
    """A row: which models, which efforts they take, and whether they think when nothing is asked."""

    name: str
    pattern: str
    example: str
    efforts: tuple[str, ...] = ()
    always: bool = False

    def fits(self, model: str) -> bool:
        return re.match(self.pattern, model) is not None

    def effort(self, level: ThinkingLevel | None) -> str | None:
        """The family's word for a level, or `None` when it has no control or nothing is asked."""
        if level is None or not self.efforts:
            return None
        wanted = ORDER.index(level)
        return min(self.efforts, key=lambda effort: (abs(ORDER.index(effort) - wanted), -ORDER.index(effort)))


_LMH = ("low", "medium", "high")
_LMHX = (*_LMH, "xhigh")

NO_THINKING = Family("any other model", "", "gpt-4.1")

OPENAI = (
    Family("gpt-5-chat", r"gpt-5-chat", "gpt-5-chat-latest"),
    Family("gpt-5.x chat", r"gpt-5\.\d+-chat", "gpt-5.2-chat-latest", ("medium",), always=True),
    Family("gpt-5-pro", r"gpt-5-pro", "gpt-5-pro", ("high",), always=True),
    Family("gpt-5.x pro", r"gpt-5\.\d+-pro", "gpt-5.4-pro", ("medium", "high", "xhigh"), always=True),
    Family("gpt-5-codex", r"gpt-5-codex", "gpt-5-codex", _LMH, always=True),
    Family("gpt-5", r"gpt-5(?!\.)", "gpt-5-mini", ("minimal", *_LMH), always=True),
    Family("gpt-5.1-codex-max", r"gpt-5\.1-codex-max", "gpt-5.1-codex-max", _LMHX, always=True),
    Family("gpt-5.1-codex", r"gpt-5\.1-codex", "gpt-5.1-codex", _LMH, always=True),
    Family("gpt-5.1", r"gpt-5\.1(?!\d)", "gpt-5.1", _LMH),
    Family("gpt-5.2 to 5.4", r"gpt-5\.[234](?!\d)", "gpt-5.4", _LMHX),
    Family("gpt-5.5", r"gpt-5\.5(?!\d)", "gpt-5.5", _LMHX, always=True),
    Family("gpt-5.6 and later", r"gpt-(?:5\.|[6-9]|\d\d)", "gpt-5.6-sol", (*_LMHX, "max"), always=True),
    Family("o1-mini, o1-preview", r"o1-(?:mini|preview)", "o1-mini", always=True),
    Family("deep research", r"o\d(?:-mini|-\w+)*-deep-research", "o3-deep-research", ("medium",), always=True),
    Family("o-series, codex-mini", r"o\d|codex-mini", "o4-mini", _LMH, always=True),
    Family("gpt-oss", r"gpt-oss", "gpt-oss-120b", _LMH, always=True),
    NO_THINKING,
)
XAI = (
    Family("grok-3-mini", r"grok-3-mini", "grok-3-mini", ("low", "high"), always=True),
    Family("grok-4.3", r"grok-(?:4\.3|latest)", "grok-4.3", _LMH),
    Family("grok-4.5", r"grok-(?:4\.[4-9]|[5-9]|build-latest)", "grok-4.5", _LMH, always=True),
    NO_THINKING,
)
ROUTER = (Family("any model", r"", "qwen/qwen3-max", ("minimal", *_LMHX)),)
"""OpenRouter translates efforts for whatever is behind it."""
OPEN = (
    Family("gpt-oss", r"gpt-oss", "gpt-oss:20b", _LMH, always=True),
    Family(
        "open models known to think",
        r"qwen-?3(?!.*(?:coder|instruct))|qwq|deepseek-(?:r1|reasoner|v3\.[12]|v4)|magistral|glm-(?:4\.[5-9]|5)|zai-glm"
        r"|kimi-(?:k2\.[5-9]|k2-thinking|k3|thinking)|minimax-m|phi-?4.*reasoning|smollm3|nemotron|seed-oss",
        "qwen3:8b",
        _LMH,
    ),
    NO_THINKING,
)
"""Local servers and other chat dialects. A model that cannot think may refuse the parameter, so others get none."""


def base_name(model: str) -> str:
    """The model's own name: no vendor or folder before it, no tag of a fine-tune, lower case."""
    return model.lower().removeprefix("~").rpartition("/")[2].removeprefix("ft:")


def chat_family(provider: str, model: str) -> Family:
    """The row for a model behind a chat completions or responses API."""
    if provider == "openrouter":
        return ROUTER[0]
    rows = OPENAI if provider in ("openai", "azure") else XAI if provider == "xai" else OPEN
    if provider in ("groq", "cerebras", "mistral"):
        # These know the parameter for gpt-oss only and refuse it for the rest.
        rows = (OPEN[0], NO_THINKING)
    return _row(rows, base_name(model))


def responses_family(model: str) -> Family:
    """The row for a model behind a responses API: OpenAI's names mean OpenAI's models there, whoever serves them."""
    return _row(OPENAI, base_name(model))


def _row(rows: tuple[Family, ...], name: str) -> Family:
    return next(row for row in rows if row.fits(name))


# -- Anthropic ---------------------------------------------------------------------------------------------------

CLAUDE_BUDGETS: dict[ThinkingLevel, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768}
MIN_BUDGET = 1024


@dataclass(frozen=True, slots=True)
class Claude:
    """What a Claude generation takes. `mode`: `none`, `budget` (budget_tokens) or `adaptive` (effort)."""

    name: str
    example: str
    mode: str
    efforts: tuple[str, ...]
    max_output: int
    default_output: int
    always: bool = False
    """Thinks when nothing is asked, so that summaries alone may be asked for."""
    sampling: bool = True
    """Takes temperature and top_p while it does not think."""
    forced_tools: bool = True
    bound: bool = False
    """Checks that nothing before a replayed thinking block has changed."""

    def effort(self, level: ThinkingLevel | None) -> str | None:
        return Family("", "", "", self.efforts).effort(level)


_FIVE = ("low", "medium", "high", "xhigh", "max")
CLAUDE = (
    Claude("Claude 3", "claude-3-haiku-20240307", "none", (), 4096, 4096),
    Claude("Claude 3.5", "claude-3-5-sonnet-20241022", "none", (), 8192, 8192),
    Claude("Claude 3.7", "claude-3-7-sonnet-20250219", "budget", (), 64000, 32000),
    Claude("Claude 4, 4.1", "claude-opus-4-1-20250805", "budget", (), 32000, 32000),
    Claude("Claude 4.5", "claude-haiku-4-5", "budget", (), 64000, 32000),
    Claude("Claude 4.6", "claude-opus-4-6", "adaptive", ("low", "medium", "high", "max"), 128000, 32000),
    Claude("Claude 4.7, 4.8", "claude-opus-4-8", "adaptive", _FIVE, 128000, 32000, sampling=False),
    Claude("Claude 5", "claude-opus-5", "adaptive", _FIVE, 128000, 32000, always=True, sampling=False),
    Claude(
        "Claude Fable 5, Mythos 5",
        "claude-fable-5",
        "adaptive",
        _FIVE,
        128000,
        32000,
        always=True,
        sampling=False,
        forced_tools=False,
    ),
    Claude(
        "Claude 5.1 and later",
        "claude-opus-5-5",
        "adaptive",
        _FIVE,
        128000,
        32000,
        always=True,
        sampling=False,
        forced_tools=False,
        bound=True,
    ),
    Claude("not a Claude", "llama-3", "none", (), 8192, 8192),
)
_CLAUDE_NAME = re.compile(
    r"claude-(?:(?P<old>\d(?:[-.]\d(?!\d))?)-)?(?P<line>[a-z]+)(?:-(?P<new>\d{1,2}(?:[-.]\d{1,2}(?!\d))?)(?!\d))?"
)


def claude(model: str) -> Claude:
    """The generation of a Claude by its name, also as Bedrock and Vertex write it."""
    found = _CLAUDE_NAME.search(model.lower())
    rows = {row.name: row for row in CLAUDE}
    if found is None:
        return rows["not a Claude"]
    line = found["line"]
    digits = re.split(r"[-.]", found["old"] or found["new"] or "")
    major = int(digits[0]) if digits[0] else 5
    version = (major, int(digits[1]) if len(digits) > 1 else 0)
    if version >= (5, 1):
        return rows["Claude 5.1 and later"]
    if line in ("fable", "mythos"):
        return rows["Claude Fable 5, Mythos 5"]
    starts = {(0, 0): "Claude 3", (3, 5): "Claude 3.5", (3, 7): "Claude 3.7", (4, 0): "Claude 4, 4.1"}
    starts |= {(4, 5): "Claude 4.5", (4, 6): "Claude 4.6", (4, 7): "Claude 4.7, 4.8", (5, 0): "Claude 5"}
    return rows[starts[max(start for start in starts if start <= version)]]


# -- Gemini ------------------------------------------------------------------------------------------------------

GEMINI_BUDGETS: dict[ThinkingLevel, int] = {"minimal": 512, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768}


@dataclass(frozen=True, slots=True)
class Gemini:
    """A row: `levels` go into thinkingLevel; `budget` is the largest thinkingBudget."""

    name: str
    pattern: str
    example: str
    levels: tuple[str, ...] = ()
    budget: int | None = None

    @property
    def thinks(self) -> bool:
        return bool(self.levels or self.budget)

    def level(self, level: ThinkingLevel | None) -> str | None:
        return Family("", "", "", self.levels).effort(level)


GEMINI = (
    Gemini("gemini-2.5-pro", r"gemini-2\.5-pro", "gemini-2.5-pro", budget=32768),
    Gemini("gemini-2.5-flash", r"gemini-2\.5-flash(?!.*image)", "gemini-2.5-flash-lite", budget=24576),
    Gemini("gemini-3-pro", r"gemini-3-pro", "gemini-3-pro-preview", ("low", "high")),
    Gemini(
        "gemini-3.x pro, 3.7 flash and later",
        r"gemini-(?:3\.\d+-pro|3\.[7-9]|[4-9]|\w+-latest)",
        "gemini-3.1-pro",
        _LMH,
    ),
    Gemini("other gemini-3", r"gemini-3", "gemini-3-flash-preview", ("minimal", *_LMH)),
    Gemini("older Gemini, Gemma", r"", "gemini-2.0-flash"),
)


def gemini(model: str) -> Gemini:
    """The row for a Gemini model."""
    name = base_name(model)
    return next(row for row in GEMINI if re.match(row.pattern, name))


# -- the document ------------------------------------------------------------------------------------------------


def table() -> str:
    """The whole table in Markdown, as docs/thinking.md has it."""
    out: list[str] = []

    def head(title: str, sent: str) -> None:
        out.extend(["", f"### {title}", "", f"{sent}", ""])
        out.append("| models | for example | " + " | ".join(THINKING_LEVELS) + " | with no level |")
        out.append("| --- | --- |" + " --- |" * (len(THINKING_LEVELS) + 1))

    def row(name: str, example: str, cells: list[str], always: bool) -> None:
        rest = "thinks" if always else "does not think, or the server decides"
        out.append(f"| {name} | `{example}` | {' | '.join(cells)} | {rest} |")

    def efforts(rows: tuple[Family, ...]) -> None:
        for family in rows:
            row(family.name, family.example, [family.effort(v) or "-" for v in THINKING_LEVELS], family.always)

    head("OpenAI, Azure", "`reasoning_effort` (chat completions) or `reasoning.effort` (responses)")
    efforts(OPENAI)
    head("xAI", "`reasoning_effort`")
    efforts(XAI)
    head("OpenRouter", "`reasoning.effort`")
    efforts(ROUTER)
    head("Ollama, LM Studio, vLLM, llama-server, Groq, DeepSeek and other chat dialects", "`reasoning_effort`")
    efforts(OPEN)
    head("Anthropic", "`thinking: adaptive` with `output_config.effort`, or `thinking.budget_tokens`")
    for kind in CLAUDE:
        if kind.mode == "budget":
            cells = [str(min(CLAUDE_BUDGETS[v], kind.max_output * 4 // 5)) for v in THINKING_LEVELS]
        else:
            cells = [kind.effort(v) or "-" for v in THINKING_LEVELS]
        row(kind.name, kind.example, cells, kind.always)
    head("Gemini", "`thinkingConfig.thinkingLevel`, or `thinkingConfig.thinkingBudget`")
    for line in GEMINI:
        if line.budget:
            cells = [str(min(GEMINI_BUDGETS[v], line.budget)) for v in THINKING_LEVELS]
        else:
            cells = [line.level(v) or "-" for v in THINKING_LEVELS]
        row(line.name, line.example, cells, line.thinks)
    return "\n".join(out).strip() + "\n"
