"""From an environment's `network` and `env`, as the Interactions API writes them, to a policy."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, cast

from interactd.errors import InvalidArgument, NotFound
from interactd.nouns import Json
from interactd.sandbox.credentials.kinds import Credential, Secret, SecretSource, header_name
from interactd.sandbox.egress.policy.hosts import BadHost
from interactd.sandbox.egress.policy.patterns import Pattern
from interactd.sandbox.egress.policy.rules import Policy, Reference, Rule

PLACEHOLDER = "interactd-credential-"
MAX_RULES = 500
_OWN_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_RULE_FIELDS = {"domain", "credential", "transform"}


def read(network: Json | str | None, env: Mapping[str, Any] | None, credentials: SecretSource | None = None) -> Policy:
    """Make the policy of one run; its placeholders are new each time.

    Args:
        network: None or `"disabled"` (off), or `{"allowlist": [{"domain", "credential"?, "transform"?}]}`; an entry may
            be a bare domain, and `{"allowlist": "disabled"}` is off as well.
        env: name -> text, `{"value": text}` or `{"credential": id}`.
        credentials: where the credentials are; none are known without it.

    Raises:
        InvalidArgument: a field is wrong; `field` is its path, such as `network.allowlist[2].domain`.
    """
    rules = tuple(_rules(network, credentials))
    plain, references = _env(env or {}, rules, credentials)
    if bypass := _bypass(rules):
        plain = {"NO_PROXY": bypass, "no_proxy": bypass, **plain}
    return Policy(rules=rules, references=references, env=plain, source=credentials)


def _rules(network: object, credentials: SecretSource | None) -> list[Rule]:
    if network is None or network == "disabled":
        return []
    if not isinstance(network, Mapping):
        raise InvalidArgument(
            f'network: expected "disabled" or {{"allowlist": [{{"domain": "example.org"}}]}}, got {_shown(network)}',
            field="network",
        )
    given = cast("Mapping[str, Any]", network)
    unknown = sorted(str(key) for key in given if key != "allowlist")
    if unknown:
        raise InvalidArgument(f"network.{unknown[0]}: no such field; it has allowlist", field=f"network.{unknown[0]}")
    listed: object = given.get("allowlist")
    if listed is None or listed == "disabled":
        return []
    if not isinstance(listed, (list, tuple)):
        raise InvalidArgument(
            f"network.allowlist: expected a list of domains, got {_shown(listed)}", field="network.allowlist"
        )
    entries = cast("list[object]", listed)
    if len(entries) > MAX_RULES:
        raise InvalidArgument(
            f"network.allowlist: {len(entries)} entries, {MAX_RULES} at most", field="network.allowlist"
        )
    return [_rule(entry, f"network.allowlist[{index}]", credentials) for index, entry in enumerate(entries)]


def _rule(entry: object, where: str, credentials: SecretSource | None) -> Rule:
    if isinstance(entry, str):
        entry = {"domain": entry}
    if not isinstance(entry, Mapping):
        raise InvalidArgument(f'{where}: expected {{"domain": "example.org"}}, got {_shown(entry)}', field=where)
    given = cast("Mapping[str, Any]", entry)
    unknown = sorted(str(key) for key in given if key not in _RULE_FIELDS)
    if unknown:
        field = f"{where}.{unknown[0]}"
        raise InvalidArgument(f"{field}: no such field; an entry has domain, credential and transform", field=field)
    domain = given.get("domain")
    if not isinstance(domain, str) or not domain.strip():
        raise InvalidArgument(f"{where}.domain: expected a domain, got {_shown(domain)}", field=f"{where}.domain")
    try:
        pattern = Pattern.parse(domain)
    except BadHost as exc:
        raise InvalidArgument(
            f"{where}.domain: {exc}",
            repair="Write example.org, *.example.org, example.org:8443, or * for every public host.",
            field=f"{where}.domain",
        ) from None
    rule = Rule(
        pattern,
        _rule_credential(given.get("credential"), pattern, f"{where}.credential", credentials),
        _transform(given.get("transform"), f"{where}.transform"),
    )
    if pattern.everything and rule.adds:
        field = f"{where}.credential" if rule.credential else f"{where}.transform"
        raise InvalidArgument(
            f"{field}: for the domain `*` every host would get it, and every tunnel would have to be opened",
            repair="Name the domains that need it in entries of their own.",
            field=field,
        )
    return rule


def _rule_credential(
    value: object, pattern: Pattern, where: str, credentials: SecretSource | None
) -> Credential | None:
    if value is None:
        return None
    found = _find(value, where, credentials)
    if found.type != "bearer_token":
        raise InvalidArgument(
            f"{where}: {found.id!r} is an {found.type}, which has no header of its own",
            repair=f'Refer to it in env, {{"NAME": {{"credential": "{found.id}"}}}}, or add a bearer_token.',
            field=where,
        )
    if found.trusted_domains and not any(trusted.covers_pattern(pattern) for trusted in found.trusted_domains):
        raise InvalidArgument(
            f"{where}: {found.id!r} may go to {', '.join(map(str, found.trusted_domains))} only, not to {pattern}",
            field=where,
        )
    return found


def _transform(value: object, where: str) -> tuple[tuple[str, Secret], ...]:
    if value is None:
        return ()
    maps = cast("list[object]", value) if isinstance(value, (list, tuple)) else [value]
    found: dict[str, tuple[str, Secret]] = {}
    for item in maps:
        if not isinstance(item, Mapping):
            raise InvalidArgument(f"{where}: expected a map of headers, or a list of such maps", field=where)
        for key, text in cast("Mapping[object, object]", item).items():
            name = header_name(key, where)
            if not isinstance(text, str) or any(c < " " or c == "\x7f" for c in text) or not text.isascii():
                # The value may be a secret, so the message does not show it.
                raise InvalidArgument(f"{where}.{name}: expected one line of ASCII text", field=f"{where}.{name}")
            found[name.lower()] = (name, Secret(text.strip()))
    return tuple(found.values())


def _env(
    env: Mapping[str, Any], rules: tuple[Rule, ...], credentials: SecretSource | None
) -> tuple[dict[str, str], tuple[Reference, ...]]:
    if not isinstance(cast("object", env), Mapping):
        raise InvalidArgument(f"env: expected a map of names to values, got {_shown(env)}", field="env")
    plain: dict[str, str] = {}
    references: dict[str, Reference] = {}
    for name, value in cast("Mapping[object, object]", env).items():
        where = f"env.{name}"
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise InvalidArgument(
                f"env: {_shown(name)} is not a variable's name (letters, digits and `_`)", field="env"
            )
        if isinstance(value, Mapping):
            given = cast("Mapping[str, object]", value)
            if set(given) == {"value"}:
                value = given["value"]
            elif set(given) == {"credential"}:
                found = _find(given["credential"], f"{where}.credential", credentials)
                if found.id not in references:
                    references[found.id] = _reference(found, rules, f"{where}.credential")
                plain[name] = references[found.id].placeholder
                continue
            else:
                raise InvalidArgument(f'{where}: expected text, {{"value": text}} or {{"credential": id}}', field=where)
        if not isinstance(value, str) or "\0" in value:
            raise InvalidArgument(f'{where}: expected text, {{"value": text}} or {{"credential": id}}', field=where)
        plain[name] = value
    return plain, tuple(references.values())


def _reference(found: Credential, rules: tuple[Rule, ...], where: str) -> Reference:
    trusted = found.trusted_domains or tuple(
        rule.pattern for rule in rules if rule.credential is not None and rule.credential.id == found.id
    )
    if not trusted:
        raise InvalidArgument(
            f"{where}: {found.id!r} names no trusted domains, so that it would never be used",
            repair=f"Add it again with the domains that may see it (interactd credential add {found.id} --replace "
            "--domain api.example.org), or name it in a network.allowlist entry.",
            field=where,
        )
    placeholder = f"{PLACEHOLDER}{re.sub('[^a-z0-9]+', '-', found.id.lower())}-{secrets.token_hex(16)}"
    return Reference(placeholder, found, trusted)


def _bypass(rules: tuple[Rule, ...]) -> str | None:
    """What programs in the sandbox reach without the proxy: its own loopback, but for a host that was listed; None
    leaves what the launcher says."""
    listed = {rule.pattern.name for rule in rules if not rule.pattern.wildcard}
    left = [name for name in _OWN_LOOPBACK if name not in listed]
    return None if len(left) == len(_OWN_LOOPBACK) else ",".join(left) or "none.invalid"


def _find(value: object, where: str, credentials: SecretSource | None) -> Credential:
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{where}: expected a credential's id, got {_shown(value)}", field=where)
    try:
        if credentials is None:
            raise NotFound("no credentials", kind="credential", id=value)
        return credentials.get(value)
    except (NotFound, InvalidArgument):
        raise InvalidArgument(
            f"{where}: no credential {_shown(value)}",
            repair=f"Add it with `interactd credential add {value[:63]}`; `interactd credential list` shows them all.",
            field=where,
        ) from None


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    # Never its contents: a body in the wrong shape may still hold a header with a token.
    return "nothing" if value is None else f"a {type(value).__name__}"
