"""What never leaves this machine in an archive: plain values of variables and headers, which may be secrets.

Their names stay, so that an import can say what has to be given again.
"""

from __future__ import annotations

from typing import Any, Final, cast

from interactd.nouns import Json

_KEPT: Final = ("sources", "env", "network", "limits", "approvals", "made_for")


def environment(body: Json) -> Json:
    """Return the body of an environment's row for an archive: nothing of this machine's (mounts, runs), no values."""
    return asked({name: body[name] for name in (*_KEPT, "withheld") if name in body})


def asked(body: Json) -> Json:
    """Return a create body without values; `withheld` has the names of what was left out."""
    out = dict(body)
    before = cast("Json", body.get("withheld") or {})
    names: set[str] = set(before.get("env") or [])
    domains: set[str] = set(before.get("transform") or [])
    env: Any = body.get("env")
    if isinstance(env, dict):
        given = cast("Json", env)
        out["env"] = {name: value for name, value in given.items() if _by_reference(value)}
        names |= set(given) - set(out["env"])
    network: Any = body.get("network")
    if isinstance(network, dict) and isinstance(cast("Json", network).get("allowlist"), list):
        rules: list[Any] = []
        for rule in cast("list[Any]", network["allowlist"]):
            if isinstance(rule, dict) and "transform" in rule:
                plain = cast("Json", rule)
                domains.add(str(plain.get("domain")))
                rule = {name: value for name, value in plain.items() if name != "transform"}
            rules.append(rule)
        out["network"] = {**cast("Json", network), "allowlist": rules}
    withheld: Json = {}
    if names:
        withheld["env"] = sorted(names)
    if domains:
        withheld["transform"] = sorted(domains)
    out.pop("withheld", None)
    return {**out, "withheld": withheld} if withheld else out


def _by_reference(value: Any) -> bool:
    return isinstance(value, dict) and set(cast("Json", value)) == {"credential"}
