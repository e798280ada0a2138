"""Agents' folders for tests, and the three places they can be in."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

from interactd import paths
from interactd.agents import AgentFolders
from interactd.agents.port import AgentDefinition, AgentProblem

INSTRUCTIONS = "Do what is asked.\n"


@dataclass(slots=True)
class Home:
    """A machine of one user: the config folder, and a project that is the working directory."""

    root: Path

    @property
    def paths(self) -> paths.Paths:
        return paths.find({"INTERACTD_HOME": str(self.root / "home")})

    @property
    def config(self) -> Path:
        return self.paths.config / "agents"

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def local(self) -> Path:
        return self.project / ".agents" / "agents"

    def config_agent(self, agent_id: str, manifest: str = "", instructions: str = INSTRUCTIONS) -> Path:
        return write(self.config / agent_id, manifest, instructions)

    def project_agent(self, agent_id: str, manifest: str = "", instructions: str = INSTRUCTIONS) -> Path:
        return write(self.local / agent_id, manifest, instructions)

    def folders(self) -> AgentFolders:
        return AgentFolders(self.paths)

    def resolve(self, agent_id: str, *, pinned: str | None = None) -> AgentDefinition:
        return self.folders().resolve_now(agent_id, cwd=str(self.project), pinned=pinned)

    def list(self) -> tuple[dict[str, AgentDefinition], list[AgentProblem]]:
        found, problems = self.folders().list_now(cwd=str(self.project))
        return {each.id: each for each in found}, problems


def write(folder: Path, manifest: str = "", instructions: str = INSTRUCTIONS) -> Path:
    """Write a folder whose agent.yaml is id, description and `manifest`."""
    folder.mkdir(parents=True, exist_ok=True)
    head = f"id: {folder.name}\ndescription: An agent for a test.\n"
    (folder / "agent.yaml").write_text(head + textwrap.dedent(manifest), encoding="utf-8")
    if instructions:
        (folder / "AGENTS.md").write_text(instructions, encoding="utf-8")
    return folder


def skill(folder: Path, name: str, text: str | None = None) -> Path:
    """Write a skill into a folder; `text` is the whole SKILL.md."""
    file = folder / "skills" / name / "SKILL.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        text or f"---\nname: {name}\ndescription: Use it for {name}.\n---\n\nDo it well.\n", encoding="utf-8"
    )
    return file
