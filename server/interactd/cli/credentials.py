"""`interactd credential add|list|remove`: secrets by reference, kept on this machine and shown to nobody."""

from __future__ import annotations

import argparse

from interactd import paths
from interactd.cli.durations import ago
from interactd.cli.main import print_json
from interactd.cli.sessions import table
from interactd.faces.wire import iso
from interactd.nouns import Json
from interactd.sandbox.credentials import commands


def run(args: argparse.Namespace) -> int:
    """Run `interactd credential ...`."""
    match args.credential_command:
        case "add":
            return add(args)
        case "remove":
            return remove(args)
        case _:
            return list_all(args)


def add(args: argparse.Namespace) -> int:
    """Ask for the secret and keep it."""
    made = commands.add(
        paths.find().make(),
        args.id,
        type=args.type,
        domains=args.domain,
        header_name=args.header,
        prefix=args.prefix,
        injection_location=args.places,
        replacing=args.replace,
    )
    if args.json:
        print_json(_form(made))
        return 0
    place = "the system's keyring" if made["kept_in"] == "keyring" else "a file that only you can read"
    print(f"{made['id']}: kept in {place}")
    print(_use(made))
    return 0


def list_all(args: argparse.Namespace) -> int:
    """Print what is there, without any secret."""
    found = commands.list_all(paths.find())
    if args.json:
        print_json([_form(each) for each in found])
        return 0
    if not found:
        print("No credentials. Keep one: interactd credential add NAME --domain api.example.org")
        return 0
    rows = [
        (
            each["id"],
            each["type"],
            ", ".join(each["trusted_domains"]) or "(where an environment says)",
            each["kept_in"],
            ago(iso(each["updated_at"]) or ""),
        )
        for each in found
    ]
    table(("credential", "type", "for", "kept in", "changed"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    """Forget one."""
    gone = commands.remove(paths.find(), args.id)
    if args.json:
        print_json(_form(gone))
    else:
        print(f"{gone['id']}: forgotten; environments that name it have no such secret any more")
    return 0


def _use(made: Json) -> str:
    """How an environment refers to it."""
    if made["type"] == "environment_variable":
        return f'in an environment: "env": {{"NAME": {{"credential": "{made["id"]}"}}}}'
    domain = (made["trusted_domains"] or ["api.example.org"])[0]
    rule = f'{{"domain": "{domain}", "credential": "{made["id"]}"}}'
    return f'in an environment: "network": {{"allowlist": [{rule}]}}'


def _form(one: Json) -> Json:
    return {**one, "created_at": iso(one["created_at"]), "updated_at": iso(one["updated_at"])}
