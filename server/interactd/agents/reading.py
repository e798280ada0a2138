"""One folder as it stands: its manifest, instructions, skills and hooks, and all that is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from interactd.agents.documents import Document, Fault, field_name, text
from interactd.agents.manifest import agent_yaml, hooks, skill
from interactd.agents.manifest.schema import Manifest
from interactd.agents.manifest.skill import FrontMatter
from interactd.agents.port import AgentProblem, Origin
from interactd.agents.tree import Entry, Tree, scan
from interactd.nouns import Json

INSTRUCTIONS: Final = "AGENTS.md"
MAX_INSTRUCTIONS: Final = 65_536
_SKILL_FILE = re.compile(r"skills/[^/]+/SKILL\.md")
_RIGHT_NAMES: Final = {
    "agent.yml": "agent.yaml",
    "agents.yaml": "agent.yaml",
    "agents.yml": "agent.yaml",
    "agent.json": "agent.yaml",
    "agent.toml": "agent.yaml",
    "agent.yaml": "agent.yaml",
    "agent.md": "AGENTS.md",
    "agents.md": "AGENTS.md",
    "agents.txt": "AGENTS.md",
    "instructions.md": "AGENTS.md",
    "skill": "skills",
    "skills": "skills",
    "skill.md": "skills/NAME/SKILL.md",
    "source": "sources",
    "sources": "sources",
    "hook.json": "hooks.json",
    "hooks.json": "hooks.json",
    "hooks.yaml": "hooks.json",
}
_OF_A_PROJECT: Final = frozenset({"AGENTS.md", "skills", "hooks.json", "hooks", "scripts"})


@dataclass(slots=True)
class Folder:
    """What was read. With `problems` it is not used; `left_out` are problems of parts that it goes without."""

    id: str | None
    origin: Origin
    path: Path
    project: Path | None = None
    """The project's folder (where `.agents` is), for what comes from one."""
    manifest: Manifest | None = None
    base: str | None = None
    shadows: bool = False
    lines: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    """Where the fields of agent.yaml are."""
    instructions: str = ""
    skills: dict[str, FrontMatter] = field(default_factory=dict[str, FrontMatter])
    hooks: Json = field(default_factory=dict[str, Any])
    files: dict[str, Entry] = field(default_factory=dict[str, Entry])
    problems: list[AgentProblem] = field(default_factory=list[AgentProblem])
    left_out: list[AgentProblem] = field(default_factory=list[AgentProblem])

    @property
    def trusted(self) -> bool:
        return self.origin != "project"

    def problem(self, file: str, message: str, line: int | None = None, field_: str | None = None) -> AgentProblem:
        """Return a problem of this folder; `file` is relative to it."""
        return AgentProblem(
            self.id or "(project)", str(self.path / file) if file else str(self.path), line, field_, message
        )


def read_agent(path: Path, origin: Origin, *, project: Path | None = None) -> Folder:
    """Read the folder of an agent; its name is the agent's id. Never raises for what is in it."""
    out = Folder(path.name, origin, path, project)
    tree = scan(path, keep=_kept)
    _take(tree, out)
    for name in sorted({top.split("/", 1)[0] for top in (*tree.files, *tree.folders)}):
        right = _RIGHT_NAMES.get(name.lower())
        if right is not None and right != name:
            out.problems.append(out.problem(name, f"expected the name {right}"))
    _manifest(out)
    _instructions(out)
    _skills(tree, out, out.problems)
    _hooks(out)
    if out.manifest is not None and out.base is None and not out.instructions and not out.problems:
        out.problems.append(out.problem(INSTRUCTIONS, "is missing: an agent without base_agent needs instructions"))
    return out


def read_project(path: Path, project: Path) -> Folder | None:
    """Read a project's bare `.agents/`: AGENTS.md, skills/ and hooks.json with its scripts; the rest is not looked at.

    A broken skill is left out (skills are often put there by other tools); broken instructions or hooks are problems,
    since hooks are there to guard.

    Returns:
        None where there is none of these.
    """
    out = Folder(None, "project", path, project)
    tree = scan(path, keep=_kept, only=_OF_A_PROJECT.__contains__)
    _take(tree, out)
    _instructions(out)
    _skills(tree, out, out.left_out)
    _hooks(out)
    for broken in {name.split("/")[1] for name in tree.folders if name.startswith("skills/")} - set(out.skills):
        out.files = {name: entry for name, entry in out.files.items() if not name.startswith(f"skills/{broken}/")}
    if out.problems or out.left_out or out.instructions or out.skills or out.hooks:
        return out
    return None


def _kept(path: str) -> int | None:
    if path == agent_yaml.NAME:
        return agent_yaml.MAX_BYTES
    if path == INSTRUCTIONS:
        return MAX_INSTRUCTIONS
    if path == hooks.NAME:
        return hooks.MAX_BYTES
    return skill.MAX_BYTES if _SKILL_FILE.fullmatch(path) else None


def _take(tree: Tree, out: Folder) -> None:
    out.files = tree.files
    out.problems += [out.problem(path, message) for path, message in tree.faults]


def _data(out: Folder, name: str) -> bytes | None:
    entry = out.files.get(name)
    return entry.data if entry else None


def _faults(out: Folder, name: str, faults: list[Fault], into: list[AgentProblem]) -> None:
    # A misspelt field before the one that is missing for it.
    ordered = sorted(faults, key=lambda fault: (fault.line or 0, not fault.message.startswith("unknown")))
    into += [out.problem(name, fault.message, fault.line, field_name(fault.path)) for fault in ordered[:100]]


def _manifest(out: Folder) -> None:
    data = _data(out, agent_yaml.NAME)
    if data is None:
        if not any(problem.file.endswith(f"/{agent_yaml.NAME}") for problem in out.problems):
            out.problems.append(out.problem(agent_yaml.NAME, "is missing; it needs at least `id` and `description`"))
        return
    out.manifest, document = agent_yaml.read(data, folder_name=out.path.name, inside=out.project)
    _faults(out, agent_yaml.NAME, document.faults, out.problems)
    _remember(out, document)


def _remember(out: Folder, document: Document) -> None:
    out.lines = {str(path[0]): line for path, line in document.lines.items() if len(path) == 1}
    if isinstance(document.value, dict):
        # Also where the manifest is wrong: a broken agent must not hand its place to the one it shadows.
        out.shadows = document.value.get("shadows") is True  # pyright: ignore[reportUnknownMemberType]
    if out.manifest is not None:
        out.base = out.manifest.base_agent


def _instructions(out: Folder) -> None:
    data = _data(out, INSTRUCTIONS)
    if data is None:
        return
    plain, faults = text.decode(data)
    _faults(out, INSTRUCTIONS, faults, out.problems)
    out.instructions = plain.strip()
    if not faults and not out.instructions:
        out.problems.append(out.problem(INSTRUCTIONS, "expected instructions, got an empty file", 1))


def _skills(tree: Tree, out: Folder, into: list[AgentProblem]) -> None:
    names = sorted(name.split("/")[1] for name in tree.folders if re.fullmatch(r"skills/[^/]+", name))
    if len(names) > skill.MAX_SKILLS:
        into.append(out.problem("skills", f"expected at most {skill.MAX_SKILLS} skills, got {len(names)}"))
        return
    for stray in sorted(name for name in out.files if re.fullmatch(r"skills/[^/]+", name)):
        if stray.lower() != "skills/readme.md":
            into.append(out.problem(stray, f"expected a folder with a {skill.NAME} in it, got a file"))
    for name in names:
        file = f"skills/{name}/{skill.NAME}"
        data = _data(out, file)
        if data is None:
            near = next((each for each in out.files if each.lower() == file.lower()), None)
            hint = f"; expected this name for {near.rsplit('/', 1)[1]}" if near else ""
            # Where it is too large or unreadable, that has been said.
            if not any(problem.file == str(out.path / file) for problem in out.problems):
                into.append(out.problem(file, f"is missing{hint}"))
            continue
        front, document = skill.read(data, folder_name=name)
        _faults(out, file, document.faults, into)
        if front is not None:
            out.skills[name] = front


def _hooks(out: Folder) -> None:
    data = _data(out, hooks.NAME)
    if data is None:
        return
    found, document = hooks.read(data, trusted=out.trusted)
    _faults(out, hooks.NAME, document.faults, out.problems)
    out.hooks = found or {}
