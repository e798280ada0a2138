"""`interactd agents new`: a folder to begin with, commented, that validates as it stands."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

from interactd.agents.documents.text import shown
from interactd.agents.manifest.agent_yaml import ALIAS
from interactd.agents.manifest.schema import ID, ID_RULE
from interactd.agents.places import FOLDER
from interactd.agents.port import DEFAULT_AGENT
from interactd.errors import Conflict, InvalidArgument, StorageError
from interactd.paths import Paths

_MANIFEST = """\
# An agent of interactd. Check it with: interactd agents validate {id}
# Every field is described in docs/agents.md; what is commented out shows a possible value.

id: {id}                      # the folder's name
description: One sentence about what this agent is for.

# Instructions, skills and settings of this one come first, this folder's go over them.
base_agent: {base}

# model: openai/gpt-5         # provider/name; without it the session's or the default model

# tools:                      # replaces the base's list
#   - code_execution
#   - files
#   - url_fetch
#   - type: function          # answered by whoever runs the agent
#     name: look_up_order
#     description: Find an order by its number.
#     parameters:
#       type: object
#       properties:
#         number: {{type: string}}
#       required: [number]

# generation_config:
#   temperature: 0.2
#   thinking_level: low

# environment:
#   network:                  # off unless domains are listed
#     allowlist:
#       - pypi.org
#       - "*.example.org"
#   env:
#     REPORT_LANGUAGE: en
#   limits:
#     memory_mb: 1024

# requires:                   # the weakest isolation it accepts: enforced, best_effort or absent
#   filesystem: enforced
#   network: enforced

# limits:                     # when a run stops by itself
#   steps: 50
#   seconds: 1800
"""
_INSTRUCTIONS = """\
# {id}

Write here what this agent should do and how, in short sentences.

- Say what a good result looks like, and which files it should write.
- Name the skills in skills/ that it should use, and when.
- Files in sources/ (if there is such a folder) are in /workspace when a run begins.
"""
_SKILL = """\
---
name: example
description: Shows what a skill looks like. Use when somebody asks for an example of a skill.
---

# Example

The model sees only the name and the description above, until it reads this file.
Put the steps of one kind of work here, and scripts or tables beside this file.
"""


def create(paths: Paths, agent_id: str, *, base: str = DEFAULT_AGENT, project: Path | None = None) -> Path:
    """Make a new agent's folder, whole or not at all.

    Args:
        base: its base_agent.
        project: make it in this folder's `.agents/agents/` instead of the config folder.

    Returns:
        The new folder.

    Raises:
        InvalidArgument: the id or the base is none.
        Conflict: the folder is there already.
        StorageError: it cannot be written.
    """
    for name, text in (("id", agent_id), ("base", base)):
        if not ID.fullmatch(text):
            raise InvalidArgument(f"{name}: expected {ID_RULE}, got {shown(text)}", field=name)
    if agent_id == DEFAULT_AGENT or ALIAS.fullmatch(agent_id):
        raise InvalidArgument(
            f"id: {agent_id} is the built-in agent",
            repair="Choose another id. To replace the built-in one, write its folder yourself, with `shadows: true`.",
            field="id",
        )
    parent = project / FOLDER / "agents" if project else paths.config / "agents"
    folder = parent / agent_id
    if folder.exists() or folder.is_symlink():
        raise Conflict(
            f"{folder} is there already",
            repair=f"Edit it (`interactd agents show {agent_id}`), choose another id, or remove the folder first.",
        )
    aside = parent / f".new-{uuid4().hex}"
    try:
        (aside / "skills" / "example").mkdir(parents=True)
        (aside / "agent.yaml").write_text(_MANIFEST.format(id=agent_id, base=base), encoding="utf-8")
        (aside / "AGENTS.md").write_text(_INSTRUCTIONS.format(id=agent_id), encoding="utf-8")
        (aside / "skills" / "example" / "SKILL.md").write_text(_SKILL, encoding="utf-8")
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder
