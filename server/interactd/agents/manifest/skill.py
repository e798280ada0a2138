"""SKILL.md, by the Agent Skills format: YAML front matter with `name` and `description`, then the instructions.

Of the fields that other products add, the common ones are let through unread; anything else is a mistake worth telling,
since a misspelt field would be ignored without a word.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, ConfigDict, Field

from interactd.agents.documents import Document, Fault, text, yaml_text
from interactd.agents.manifest.explain import check, wrong
from interactd.agents.manifest.schema import Section
from interactd.nouns import Json

NAME: Final = "SKILL.md"
MAX_BYTES: Final = 131_072
MAX_SKILLS: Final = 100
_SKILL_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_OTHER_PRODUCTS: Final = frozenset(
    {
        "agent",
        "argument-hint",
        "author",
        "context",
        "disable-model-invocation",
        "effort",
        "hooks",
        "mode",
        "model",
        "paths",
        "tags",
        "title",
        "user-invocable",
        "version",
        "when_to_use",
    }
)


def _skill_name(name: str) -> str:
    if not _SKILL_NAME.fullmatch(name) or len(name) > 64:
        raise ValueError("expected 1 to 64 lower-case letters and digits, with single hyphens between")
    return name


def _sentence(given: str) -> str:
    if not given.strip():
        raise ValueError("expected what the skill does and when to use it")
    return " ".join(given.split())


class FrontMatter(Section):
    """The fields that the format knows."""

    model_config = ConfigDict(populate_by_name=True)

    name: Annotated[str, AfterValidator(_skill_name)]
    description: Annotated[str, Field(max_length=1024), AfterValidator(_sentence)]
    license: Annotated[str, Field(max_length=1024)] | None = None
    compatibility: Annotated[str, Field(max_length=500)] | None = None
    metadata: dict[str, Any] | None = None
    allowed_tools: Annotated[Any, Field(alias="allowed-tools")] = None


def read(data: bytes, *, folder_name: str) -> tuple[FrontMatter | None, Document]:
    """Read a SKILL.md whose folder has the name that `name` must say.

    Returns:
        The front matter (None when faults forbid to use the skill) and the document with every fault.
    """
    plain, faults = text.decode(data)
    if faults:
        return None, Document(faults=faults)
    lines = plain.split("\n")
    if lines[0].rstrip() != "---":
        came = text.shown(lines[0], 40) if lines[0] else "an empty line"
        return None, _only(f"expected `---`, the start of the front matter with name and description, got {came}", 1)
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return None, _only("the front matter has no end: expected a second line `---`", 1)
    document = yaml_text.read("\n".join(lines[1:end]) + "\n", first_line=2)
    if not any(line.strip() for line in lines[end + 1 :]):
        document.faults.append(Fault("expected instructions after the front matter, got nothing", end + 1))
    if document.value is None:
        if not document.faults:
            document.faults.append(Fault("the front matter is empty; it needs `name` and `description`", 2))
        return None, document
    if not isinstance(cast("object", document.value), dict):
        wrong(document, (), "fields such as `name: my-skill` in the front matter", document.value)
        return None, document
    given = {name: value for name, value in cast("Json", document.value).items() if name not in _OTHER_PRODUCTS}
    front = check(FrontMatter, given, document)
    name = given.get("name")
    if isinstance(name, str) and _SKILL_NAME.fullmatch(name) and name != folder_name:
        wrong(document, ("name",), f"{text.shown(folder_name)}, the folder's name", name)
    return None if document.faults else front, document


def _only(message: str, line: int) -> Document:
    return Document(faults=[Fault(message, line)])
