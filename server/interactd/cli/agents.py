"""`interactd agents`: which agents there are, what one is made of, what is wrong with it, a new one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from interactd import agents, paths
from interactd.agents.port import AgentDefinition, AgentProblem
from interactd.cli.main import print_json
from interactd.nouns import Json

_HASH = 12


def run(args: argparse.Namespace) -> int:
    """Run `interactd agents ...`."""
    match args.agents_command:
        case "show":
            return show(args)
        case "validate":
            return validate(args)
        case "new":
            return new(args)
        case _:
            return list_agents(args)


def list_agents(args: argparse.Namespace) -> int:
    """Print what can be used, and the problems of the rest on stderr."""
    found, problems = agents.AgentFolders(paths.find()).list_now(cwd=_cwd())
    if args.json:
        print_json({"agents": [_brief(each) for each in found], "problems": [_problem(each) for each in problems]})
        return 0
    if sys.stdout.isatty():
        table = Table(
            "agent", "from", "model", "tools", "hash", "description", box=None, header_style="dim", pad_edge=False
        )
        for each in found:
            table.add_row(
                Text(each.id, style="bold"),
                Text(_origins(each), style="yellow" if each.origin == "project" else ""),
                Text(each.model or "-"),
                Text(_tools(each)),
                Text(each.hash[:_HASH], style="dim"),
                Text(each.description),
            )
        Console(highlight=False).print(table)
    else:
        for each in found:
            print(
                "\t".join(
                    (each.id, _origins(each), each.model or "-", _tools(each), each.hash[:_HASH], each.description)
                )
            )
    sys.stdout.flush()
    if problems:
        print(f"\n{len(problems)} problem{'s' if len(problems) > 1 else ''}:", file=sys.stderr)
        for problem in problems:
            print(agents.as_text(problem), file=sys.stderr)
    return 0


def show(args: argparse.Namespace) -> int:
    """Print everything about one agent."""
    from interactd.engine.agents.prompt import system_prompt

    found = agents.AgentFolders(paths.find()).resolve_now(args.id, cwd=_cwd())
    prompt = system_prompt(found, None, tools=_callable(found), python=None, instruction=None)
    if args.json:
        print_json({**_whole(found), "assembled_instructions": prompt})
        return 0
    limits = ", ".join(f"{name} {value:g}" for name, value in asdict(found.limits).items() if value is not None)
    for name, value in (
        ("id", found.id),
        ("description", found.description),
        ("from", _origins(found)),
        ("hash", found.hash),
        ("base agent", found.base_agent or "-"),
        ("model", found.model or "-"),
        ("tools", _tools(found) or "-"),
        ("generation", _pairs(found.generation_config.as_dict())),
        ("requires", _pairs(dict(found.requires))),
        ("limits", limits),
        ("budget", _pairs(_flat(found.budget))),
        ("network", _network(found.environment.get("network"))),
        ("sandbox", _pairs(dict(found.environment.get("limits") or {}))),
        ("env", ", ".join(sorted(found.environment.get("env") or {})) or "-"),
        ("sources", "; ".join(_source(each) for each in _sources(found)) or "-"),
        ("hooks", ", ".join(found.hooks) or "-"),
        ("copy", str(found.folder)),
    ):
        print(f"{name + ':':<13}{value}")
    for layer in found.layers:
        print(f"\n{layer.origin}: {layer.folder}")
        for path, digest in layer.files.items():
            print(f"  {digest[:_HASH]}  {path}")
    print(f"\n{prompt}")
    return 0


def validate(args: argparse.Namespace) -> int:
    """Print all problems at once; the exit code is 1 if there are any."""
    if args.target is None:
        found, problems = agents.AgentFolders(paths.find()).list_now(cwd=_cwd())
        checked = f"{len(found)} agent{'s' if len(found) != 1 else ''}"
    else:
        checked, problems = agents.validate(paths.find(), args.target, cwd=_cwd())
    if args.json:
        print_json({"checked": checked, "ok": not problems, "problems": [_problem(each) for each in problems]})
    elif problems:
        for problem in problems:
            print(agents.as_text(problem))
    else:
        print(f"{checked}: nothing wrong")
    return 1 if problems else 0


def new(args: argparse.Namespace) -> int:
    """Make a folder and say what to do with it."""
    where = paths.find()
    folder = agents.create(where, args.id, base=args.base, project=Path.cwd() if args.project else None)
    _, problems = agents.validate(where, str(folder), cwd=_cwd())
    if args.json:
        print_json({"folder": str(folder), "problems": [_problem(each) for each in problems]})
        return 0
    print(folder)
    for problem in problems:
        print(f"note: {agents.as_text(problem)}")
    print(f"Edit agent.yaml and AGENTS.md in it, then: interactd agents validate {args.id}")
    return 0


def _cwd() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:
        # The directory was removed under us: then there is no project.
        return None


def _origins(found: AgentDefinition) -> str:
    """`built-in`, `config`, or `built-in + project` where the layers are of several places."""
    return " + ".join(dict.fromkeys(layer.origin for layer in found.layers)) or found.origin


def _tools(found: AgentDefinition) -> str:
    return ", ".join((*found.tools, *(str(each["name"]) for each in found.functions)))


def _callable(found: AgentDefinition) -> tuple[str, ...]:
    return (*found.tools, "view_file") if "files" in found.tools else found.tools


def _pairs(given: Json) -> str:
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "-"


def _network(network: Any) -> str:
    listed: Any = network.get("allowlist") if isinstance(network, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(listed, list):
        return "off"
    return ", ".join(each if isinstance(each, str) else _domain(each) for each in listed) or "off"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _domain(rule: Json) -> str:
    credential = rule.get("credential")
    return f"{rule['domain']} (credential {credential})" if credential else str(rule["domain"])


def _sources(found: AgentDefinition) -> list[Json]:
    return found.environment.get("sources") or []


def _source(source: Json) -> str:
    what = source.get("source") or source["type"]
    return f"{what} -> {source.get('target', '/workspace')}"


def _brief(found: AgentDefinition) -> Json:
    return {
        "id": found.id,
        "description": found.description,
        "origin": found.origin,
        "layers": [{"id": layer.id, "origin": layer.origin, "folder": layer.folder} for layer in found.layers],
        "model": found.model,
        "base_agent": found.base_agent,
        "tools": [*found.tools, *(each["name"] for each in found.functions)],
        "skills": [each.name for each in found.skills],
        "requires": dict(found.requires),
        "hash": found.hash,
    }


def _whole(found: AgentDefinition) -> Json:
    environment = dict(found.environment)
    if "env" in environment:
        # Values may be secrets that somebody wrote there all the same.
        environment["env"] = sorted(environment["env"])
    return {
        **_brief(found),
        "folder": str(found.folder),
        "instructions": found.instructions,
        "functions": list(found.functions),
        "skills": [asdict(each) for each in found.skills],
        "generation_config": found.generation_config.as_dict(),
        "environment": environment,
        "limits": asdict(found.limits),
        "budget": dict(found.budget),
        "hooks": dict(found.hooks),
        "layers": [asdict(layer) for layer in found.layers],
    }


def _flat(budget: Mapping[str, Any]) -> Json:
    day = {f"{name} a day": value for name, value in budget.items() if name != "turn"}
    turn: Json = budget.get("turn") or {}
    return day | {f"{name} a turn": value for name, value in turn.items()}


def _problem(problem: AgentProblem) -> Json:
    return asdict(problem)
