"""Where agents are looked for: what ships with interactd, the config folder, the project of the caller."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import interactd_agents
from interactd.agents.documents.text import printable
from interactd.agents.manifest.schema import ID, ID_RULE
from interactd.agents.port import AgentProblem, Origin
from interactd.paths import Paths

FOLDER: Final = ".agents"
MAX_AGENTS: Final = 1000
_MAX_UP: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """A folder whose folders are agents, each named by its id."""

    origin: Origin
    folder: Path
    project: Path | None = None

    def at(self, agent_id: str) -> Path | None:
        """Return the folder of an agent, None where there is none."""
        path = self.folder / agent_id
        return path if ID.fullmatch(agent_id) and path.is_dir() and self._may_read(path) else None

    def scan(self, problems: list[AgentProblem]) -> Iterator[Path]:
        """Yield the folders of all agents; what is oddly named goes to `problems`."""
        try:
            names = sorted(each.name for each in self.folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            problems.append(AgentProblem("", str(self.folder), None, None, f"cannot be read: {error.strerror}"))
            return
        if len(names) > MAX_AGENTS:
            message = f"expected at most {MAX_AGENTS} agents, got {len(names)}; the rest is not looked at"
            problems.append(AgentProblem("", str(self.folder), None, None, message))
        for name in names[:MAX_AGENTS]:
            path = self.folder / name
            if name.startswith((".", "_")):
                continue
            label = printable(name)
            where = f"{self.folder}/{label}"
            if not path.is_dir():
                if name.endswith((".yaml", ".yml")):
                    message = "an agent is a folder with agent.yaml in it, not a file"
                    problems.append(AgentProblem(label, where, None, None, message))
            elif not ID.fullmatch(name):
                problems.append(AgentProblem(label, where, None, None, f"expected a folder's name of {ID_RULE}"))
            elif not self._may_read(path):
                problems.append(AgentProblem(label, where, None, None, "is a link out of the project; put a copy here"))
            else:
                yield path

    def _may_read(self, path: Path) -> bool:
        # Whoever owns the config folder may link to where the agent is worked on; a project may not point out of it.
        return self.project is None or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.project))


def all_places(paths: Paths, cwd: str | None) -> list[Place]:
    """Return the places from the first to the last looked at: an id belongs to the first that has it."""
    places = [Place("built-in", Path(interactd_agents.FOLDER)), Place("config", paths.config / "agents")]
    project = find_project(cwd)
    if project is not None:
        places.append(Place("project", project / FOLDER / "agents", project))
    return places


def find_project(cwd: str | None) -> Path | None:
    """Return the folder with the `.agents/` that belongs to a working directory: the directory itself or, inside a git
    repository, one above it, not beyond the repository. None where there is none or it is another user's."""
    if not cwd or "\0" in cwd or not Path(cwd).is_absolute():
        return None
    here = Path(os.path.normpath(cwd))
    for folder in (here, *here.parents)[:_MAX_UP]:
        try:
            if (folder / FOLDER).is_dir():
                # Up from `here` only within a repository: a `.agents` in /tmp or / is nobody's project.
                inside = folder == here or any((up / ".git").exists() for up in (folder, *_between(here, folder)))
                return folder if inside and _is_ours(folder / FOLDER) else None
            if (folder / ".git").exists():
                return None
        except (OSError, ValueError):
            return None
    return None


def _between(low: Path, high: Path) -> list[Path]:
    return [folder for folder in high.parents if folder.exists()] if low != high else []


def _is_ours(folder: Path) -> bool:
    if not hasattr(os, "getuid") or os.getuid() == 0:
        return True
    return folder.stat().st_uid in (os.getuid(), 0)
