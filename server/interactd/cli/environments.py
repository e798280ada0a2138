"""`interactd environments list|show|delete`: the workspaces of agents."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from interactd import paths
from interactd.cli.client import ControlClient, RemoteError, connected
from interactd.cli.durations import ago
from interactd.cli.main import print_json, report
from interactd.cli.sessions import table
from interactd.cli.words import safe
from interactd.errors import InteractdError


def run(args: argparse.Namespace) -> int:
    """Run `interactd environments ...`."""
    match args.environments_command:
        case "show":
            return show(args)
        case "delete":
            return delete(args)
        case _:
            return list_all(args)


def list_all(args: argparse.Namespace) -> int:
    """Print them, last used first."""
    limit: int = getattr(args, "limit", 20)
    with connected(paths.find()) as client:
        page = client.call("list_environments", limit=limit, cursor=getattr(args, "cursor", None))
    if args.json:
        print_json(page)
        return 0
    if not page["items"]:
        print("No environments. Agents make them when they work.")
        return 0
    rows = [(each["id"], ago(each["last_used_at"]), _files(each), _network(each)) for each in page["items"]]
    table(("environment", "last used", "files", "network"), rows)
    if page.get("cursor"):
        print(f"more: interactd environments list --cursor {page['cursor']}")
    return 0


def show(args: argparse.Namespace) -> int:
    """Print one and what is in a folder of it."""
    with connected(paths.find()) as client:
        one = client.call("get_environment", environment_id=args.id)
        files = client.call(
            "environment_files",
            environment_id=one["id"],
            path=args.path,
            recursive=args.recursive,
            limit=args.limit,
        )
    if args.json:
        print_json({**one, "files": files})
        return 0
    print(f"{one['id']}  {one['status']}, last used {ago(one['last_used_at'])}")
    limits: dict[str, Any] = one.get("limits") or {}
    sources: list[dict[str, Any]] = one.get("sources") or []
    facts = {
        "files": _files(one),
        "network": _network(one),
        "kept until": one["expires_at"][:16].replace("T", " "),
        "forked from": one.get("forked_from"),
        "variables": ", ".join(sorted(one.get("env") or {})),
        "limits": ", ".join(f"{name} {value}" for name, value in limits.items()),
        "sources": ", ".join(f"{each.get('type')} at {each.get('target')}" for each in sources),
    }
    for name, value in facts.items():
        if value:
            print(f"  {name:<12}{safe(str(value))}")
    for each in files:
        size = f"{each['size_bytes']:>12,}" if each["type"] == "file" else f"{each['type']:>12}"
        print(f"{size}  {safe(each['path'])}")
    if len(files) == args.limit:
        print(f"(the first {args.limit}; --path shows a folder, --limit more)")
    return 0


def delete(args: argparse.Namespace) -> int:
    """Delete each; a failure of one does not keep the others, and sets the exit code.

    As JSON: a list of receipts, with `{"environment_id", "error"}` in the place of one that failed.
    """
    receipts: list[dict[str, Any]] = []
    code = 0
    with connected(paths.find()) as client:
        for given in args.ids:
            try:
                receipt = _delete(client, given, asked=args.yes)
            except RemoteError as error:
                code = 1
                if args.json:
                    receipts.append({"environment_id": given, "error": error.as_dict()})
                else:
                    report(error, as_json=False)
                continue
            if receipt is None:
                continue
            receipts.append(receipt)
            if not args.json:
                removed = receipt["removed"]
                print(f"{receipt['environment_id']}: deleted for good ({removed['files']} files)")
                print(f"  receipt {receipt['id']}")
    if args.json:
        print_json(receipts)
    return code


def _delete(client: ControlClient, given: str, *, asked: bool) -> dict[str, Any] | None:
    if asked:
        return client.call("delete_environment", environment_id=given)
    one = client.call("get_environment", environment_id=given)
    if not sys.stdin.isatty():
        raise InteractdError(
            f"{one['id']}: deleting is final and nobody is there to confirm it",
            repair="Add --yes to delete without asking.",
        )
    if input(f"Delete {one['id']} with its {_files(one)} for good? [y/N] ").strip().lower() not in {"y", "yes"}:
        print(f"{one['id']}: left as it is")
        return None
    return client.call("delete_environment", environment_id=one["id"])


def _files(one: dict[str, Any]) -> str:
    if one.get("file_count") is None:
        return ""
    count = one["file_count"]
    return f"{count:,} file{'' if count == 1 else 's'}, {(one.get('size_bytes') or 0) / 1e6:,.1f} MB"


def _network(one: dict[str, Any]) -> str:
    policy: dict[str, Any] = one.get("network") or {}
    rules: list[dict[str, Any]] = policy.get("allowlist") or []
    return ", ".join(str(rule.get("domain")) for rule in rules) or "off"
