"""All agents of this machine: found, put together, pinned. The implementation of `agents.port.Agents`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread

from interactd.agents.documents.text import shown
from interactd.agents.keep import Changed, Keeper, Missing
from interactd.agents.manifest.agent_yaml import ALIAS
from interactd.agents.merge import Merged, clashes, merge
from interactd.agents.places import FOLDER, Place, all_places
from interactd.agents.port import DEFAULT_AGENT, AgentDefinition, AgentProblem
from interactd.agents.reading import Folder, read_agent, read_project
from interactd.errors import BadManifest, Conflict, NotFound, StorageError
from interactd.paths import Paths

MAX_BASES: Final = 8
_SHOWN_PROBLEMS: Final = 20
_TRIES: Final = 3
_HASH = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class AgentFolders:
    """Reads folders in a worker thread, so that nothing blocks the event loop; holds nothing between calls but which
    kept copies it has checked."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._keeper = Keeper(paths.data / "agents")

    async def resolve(self, agent_id: str, *, cwd: str | None = None, pinned: str | None = None) -> AgentDefinition:
        """See `Agents.resolve`. The definition's `folder` is the kept copy.

        Raises:
            NotFound, BadManifest: as the port says.
            Conflict: the folder is being changed again and again while it is read.
            StorageFull, StorageError: the copy cannot be kept, or the pinned one is damaged.
        """
        return await _thread(lambda: self.resolve_now(agent_id, cwd=cwd, pinned=pinned))

    async def list(self, *, cwd: str | None = None) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        """See `Agents.list`. Keeps no copies: a definition's `folder` is where it was found."""
        return await _thread(lambda: self.list_now(cwd=cwd))

    async def prune(
        self, pinned: Collection[str], *, unused_s: float = 7 * 86_400, only: Collection[str] | None = None
    ) -> int:
        """See `KeptAgents.prune`."""
        return await _thread(lambda: self._keeper.prune(pinned, unused_s=unused_s, only=only))

    def copy_of(self, hash: str) -> Path | None:
        """See `KeptAgents.copy_of`."""
        return self._keeper.copy_of(hash) if _HASH.fullmatch(hash) else None

    def begin_copy(self) -> Path:
        """See `KeptAgents.begin_copy`."""
        return self._keeper.begin_copy()

    def adopt(self, hash: str, aside: Path) -> bool:
        """See `KeptAgents.adopt`."""
        return self._keeper.adopt(hash, aside)

    def resolve_now(self, agent_id: str, *, cwd: str | None = None, pinned: str | None = None) -> AgentDefinition:
        """`resolve` for callers without an event loop."""
        if pinned is None:
            return self._current(agent_id, cwd)
        if not _HASH.fullmatch(pinned):
            raise NotFound(f"{shown(pinned)} is not the hash of an agent", kind="agent", id=_short(agent_id))
        try:
            return self._keeper.load(pinned)
        except Missing as error:
            return self._again(agent_id, cwd, pinned, error)

    def list_now(self, *, cwd: str | None = None) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        """`list` for callers without an event loop."""
        return Library(self._paths, cwd).list()

    def _current(self, agent_id: str, cwd: str | None) -> AgentDefinition:
        for _ in range(_TRIES):
            try:
                return self._keeper.keep(Library(self._paths, cwd).resolve(agent_id))
            except Changed:
                continue
        raise Conflict(
            f"agent {_short(agent_id)}: its folder changes while it is read",
            repair="Wait until whatever writes there is done, then try again.",
        )

    def _again(self, agent_id: str, cwd: str | None, pinned: str, missing: Missing) -> AgentDefinition:
        """Make a lost copy again, where the folder still has that very content."""
        repair = "Start a new session with the agent as it is now."
        try:
            if Library(self._paths, cwd).resolve(agent_id).definition.hash == pinned:
                return self._current(agent_id, cwd)
        except (NotFound, BadManifest):
            pass
        if missing.damaged:
            message = f"the kept copy {pinned[:12]} of agent {_short(agent_id)} is damaged: {missing.damaged}"
            raise StorageError(message, repair=repair)
        raise NotFound(
            f"agent {_short(agent_id)} with hash {pinned[:12]} is no longer kept, and its folder has changed since",
            repair=repair,
            kind="agent",
            id=_short(agent_id),
        )


class Library:
    """The folders as they are now, for one working directory. Each is read at most once; nothing is written."""

    def __init__(self, paths: Paths, cwd: str | None) -> None:
        self._places = all_places(paths, cwd)
        self._read: dict[tuple[str, str], Folder | None] = {}

    def resolve(self, agent_id: str) -> Merged:
        """Return an agent, put together.

        Raises:
            NotFound: no such agent, with suggestions.
            BadManifest: something is wrong with it, with all problems.
        """
        wanted = DEFAULT_AGENT if ALIAS.fullmatch(agent_id) else agent_id
        chosen = self._chosen(wanted)
        if chosen is None:
            raise self._not_found(agent_id)
        merged, problems = self._put_together(chosen)
        if merged is None:
            raise bad_manifest(wanted, problems)
        return merged

    def list(self) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        """Return every agent that can be used and everything that is wrong, also with parts that are left out."""
        found: list[AgentDefinition] = []
        problems: list[AgentProblem] = []
        for place in self._places:
            for path in place.scan(problems):
                folder = self._folder(place, path.name)
                if folder is None:
                    continue
                chosen = self._chosen(path.name)
                if chosen is not folder:
                    problems += self._why_not(folder, chosen)
                    continue
                merged, wrong = self._put_together(folder)
                problems += wrong
                if merged is not None:
                    found.append(merged.definition)
        project = self._project()
        problems += project.left_out if project else []
        return sorted(found, key=lambda each: each.id), list(dict.fromkeys(problems))

    def validate(self, agent_id: str) -> tuple[Path, list[AgentProblem]]:
        """Return an agent's folder and all that is wrong with it, also where another one has its id.

        Raises:
            NotFound: no such agent.
        """
        wanted = DEFAULT_AGENT if ALIAS.fullmatch(agent_id) else agent_id
        chosen = self._chosen(wanted)
        if chosen is None:
            raise self._not_found(agent_id)
        problems = self.check(chosen)
        for place in self._places:
            other = self._folder(place, wanted)
            if other is not None and other is not chosen:
                problems += [*other.problems, *self._why_not(other, chosen)]
        return chosen.path, list(dict.fromkeys(problems))

    def at(self, path: Path) -> Folder:
        """Read the folder at a path as what it is there: an agent of one of the places, of another project, a project's
        own `.agents`, or (anywhere else) as if it stood in the config folder."""
        for place in self._places:
            if path.parent == Path(os.path.realpath(place.folder)):
                found = self._folder(place, path.name)
                if found is not None:
                    return found
        if path.name == FOLDER:
            return read_project(path, path.parent) or Folder(None, "project", path, path.parent)
        if path.parent.name == "agents" and path.parent.parent.name == FOLDER:
            return read_agent(path, "project", project=path.parent.parent.parent)
        return read_agent(path, "config")

    def check(self, folder: Folder) -> list[AgentProblem]:
        """Return all that is wrong with one folder, wherever it is, and with what it inherits from."""
        if folder.id is None:
            return [*folder.problems, *folder.left_out]
        _, problems = self._put_together(folder)
        return [*problems, *folder.left_out]

    def _folder(self, place: Place, agent_id: str) -> Folder | None:
        key = (place.origin, agent_id)
        if key not in self._read:
            path = place.at(agent_id)
            self._read[key] = read_agent(path, place.origin, project=place.project) if path else None
        return self._read[key]

    def _chosen(self, agent_id: str, *, before: int | None = None) -> Folder | None:
        """The folder an id stands for, among the first `before` places: the first that has it, or the config folder's
        where that says `shadows: true`. A project's never takes the place of another."""
        chosen: Folder | None = None
        for place in self._places[:before]:
            folder = self._folder(place, agent_id)
            if folder is not None and (chosen is None or (place.origin == "config" and folder.shadows)):
                chosen = folder
        return chosen

    def _why_not(self, folder: Folder, chosen: Folder | None) -> list[AgentProblem]:
        other = f"{chosen.origin} agent in {chosen.path}" if chosen else "other agent"
        line = folder.lines.get("id")
        if folder.origin == "built-in":
            # Somebody said `shadows: true`: as wanted.
            return []
        if folder.origin == "project":
            return [
                folder.problem(
                    "agent.yaml", f"{folder.id!r} is taken by the {other}; give this one another id", line, "id"
                )
            ]
        message = (
            f"{folder.id!r} is taken by the {other}; give this one another id, or say `shadows: true` to replace it"
        )
        return [folder.problem("agent.yaml", message, line, "id")]

    def _put_together(self, folder: Folder) -> tuple[Merged | None, list[AgentProblem]]:
        layers, problems = self._layers(folder)
        if folder.id == DEFAULT_AGENT and folder is self._chosen(DEFAULT_AGENT):
            project = self._project()
            if project is not None:
                layers.append(project)
                problems += project.problems
        if not problems:
            problems += clashes(layers)
        if problems:
            return None, list(dict.fromkeys(problems))
        return merge(layers, self._floor()), []

    def _layers(self, folder: Folder) -> tuple[list[Folder], list[AgentProblem]]:
        """The folder after its bases, base first; and what is wrong with any of them."""
        chain = [folder]
        problems = list(folder.problems)
        while (base_id := chain[-1].base) is not None:
            heir = chain[-1]
            line = heir.lines.get("base_agent")
            base = self._base(heir, base_id)
            if isinstance(base, str):
                problems.append(heir.problem("agent.yaml", base, line, "base_agent"))
                break
            if any(base is each for each in chain):
                circle = " -> ".join(str(each.id) for each in [*chain, base])
                problems.append(heir.problem("agent.yaml", f"is a circle: {circle}", line, "base_agent"))
                break
            if len(chain) > MAX_BASES:
                message = f"expected at most {MAX_BASES} bases over each other, got more"
                problems.append(heir.problem("agent.yaml", message, line, "base_agent"))
                break
            if base.problems:
                first = base.problems[0]
                message = f"{base_id!r} is wrong itself: {place_of(first)}: {first.message}"
                problems.append(heir.problem("agent.yaml", message, line, "base_agent"))
                problems += base.problems
            chain.append(base)
        return chain[::-1], problems

    def _base(self, heir: Folder, base_id: str) -> Folder | str:
        """The folder that `base_agent` means, or what is wrong with it."""
        base_id = DEFAULT_AGENT if ALIAS.fullmatch(base_id) else base_id
        known = {place.origin: self._folder(place, base_id) for place in self._places}
        if heir.origin != "project":
            if base_id == heir.id:
                # An agent may be put over the one whose place it takes.
                return known["built-in"] if heir.origin == "config" and known["built-in"] else "is the agent itself"
            found = self._chosen(base_id, before=2 if heir.origin == "config" else 1)
            return (
                found or f"expected a built-in agent or one of the config folder, got {base_id!r}{self._near(base_id)}"
            )
        if base_id == heir.id:
            return "is the agent itself"
        project = known.get("project")
        if project is not None and self._chosen(base_id) is project:
            return project
        if known["built-in"] is not None:
            return known["built-in"]
        if known["config"] is not None:
            whose = f"{base_id!r} is the user's own, which a project may not use"
            return f"expected a built-in agent or one of this project; {whose}"
        return f"expected a built-in agent or one of this project, got {base_id!r}{self._near(base_id)}"

    def _project(self) -> Folder | None:
        place = next((each for each in self._places if each.origin == "project"), None)
        if place is None or place.project is None:
            return None
        key = ("project", "")
        if key not in self._read:
            self._read[key] = read_project(place.project / FOLDER, place.project)
        return self._read[key]

    def _floor(self) -> dict[str, str]:
        default = self._folder(self._places[0], DEFAULT_AGENT)
        requires = default.manifest.requires if default and default.manifest else None
        return requires.model_dump(exclude_none=True) if requires else {"filesystem": "enforced", "network": "enforced"}

    def _ids(self) -> list[str]:
        return sorted({path.name for place in self._places for path in place.scan([])})

    def _near(self, agent_id: str) -> str:
        near = difflib.get_close_matches(agent_id.lower()[:80], self._ids(), n=1, cutoff=0.6)
        return f"; did you mean {near[0]!r}?" if near else ""

    def _not_found(self, agent_id: str) -> NotFound:
        ids = self._ids()
        near = difflib.get_close_matches(agent_id.lower()[:80], ids, n=3, cutoff=0.5)
        known = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(ids[:20])}."
        return NotFound(
            f"there is no agent {_short(agent_id)}",
            repair=f"{known} `interactd agents` lists them; `interactd agents new ID` makes one.",
            kind="agent",
            id=_short(agent_id),
            suggestions=near,
        )


def bad_manifest(agent_id: str, problems: Collection[AgentProblem]) -> BadManifest:
    """Return the error for an agent's problems: the first in its message, all in `problems`."""
    first = next(iter(problems))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    fields: dict[str, Any] = {"agent": agent_id, "file": first.file, "line": first.line, "field": first.field}
    return BadManifest(
        f"{place_of(first)}: {first.message}{more}",
        repair=f"Correct the file; `interactd agents validate {agent_id}` lists all that is wrong.",
        **fields,
        problems=[as_text(each) for each in list(problems)[:_SHOWN_PROBLEMS]],
    )


def place_of(problem: AgentProblem) -> str:
    """Return `file:line: field` as far as they are known."""
    line = f":{problem.line}" if problem.line else ""
    return f"{problem.file}{line}" + (f": {problem.field}" if problem.field else "")


def as_text(problem: AgentProblem) -> str:
    """Return a problem as one line."""
    return f"{place_of(problem)}: {problem.message}"


def validate(paths: Paths, target: str, *, cwd: str | None = None) -> tuple[str, list[AgentProblem]]:
    """Check one agent, by its id or by its folder's path.

    Returns:
        Its folder, and all that is wrong.

    Raises:
        NotFound: neither an agent nor a folder.
    """
    library = Library(paths, cwd)
    path = Path(cwd or ".") / Path(target).expanduser() if "\0" not in target else Path()
    if "/" in target or target in (".", ".."):
        if not path.is_dir():
            raise NotFound(f"there is no folder {shown(str(path), 200)}", kind="folder", id=shown(target, 200))
        return str(path), library.check(library.at(path.resolve()))
    found, problems = library.validate(target)
    return str(found), problems


def _short(agent_id: str) -> str:
    return shown(agent_id, 80)


async def _thread(work: Callable[[], _T]) -> _T:
    return await anyio.to_thread.run_sync(work)
