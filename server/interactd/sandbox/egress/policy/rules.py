"""The policy of one run: who may be reached, whose TLS is ended for it, and which secret goes where."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from interactd.nouns import Json
from interactd.sandbox.credentials.kinds import Credential, Location, Secret, SecretSource
from interactd.sandbox.egress.policy.hosts import Address, as_address, authority
from interactd.sandbox.egress.policy.patterns import Pattern
from interactd.sandbox.egress.refusal import Refused

UNLOCK_S = 60


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the allow-list, with what the proxy adds to requests that it matches."""

    pattern: Pattern
    credential: Credential | None = None
    transform: tuple[tuple[str, Secret], ...] = ()

    @property
    def adds(self) -> bool:
        return self.credential is not None or bool(self.transform)


@dataclass(frozen=True, slots=True)
class Reference:
    """A placeholder that stands in the sandbox for a credential."""

    placeholder: str
    credential: Credential
    trusted: tuple[Pattern, ...]

    def trusts(self, host: str, port: int) -> bool:
        return any(pattern.trusts(host, port) for pattern in self.trusted)

    @property
    def locations(self) -> tuple[Location, ...]:
        return self.credential.locations


@dataclass(slots=True)
class Policy:
    """Made from an environment; `env` is what enters the sandbox: plain values and placeholders.

    The secrets are read once, by `unlock`, when something is about to use them.
    """

    rules: tuple[Rule, ...] = ()
    references: tuple[Reference, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    source: SecretSource | None = field(default=None, repr=False)
    _secrets: dict[str, Secret] = field(default_factory=dict[str, Secret], repr=False)

    @staticmethod
    def from_environment(
        network: Json | str | None, env: Mapping[str, Any] | None, credentials: SecretSource | None
    ) -> Policy:
        """Check an environment's `network` and `env` and make the policy of a run; see `policy.environment.read`."""
        from interactd.sandbox.egress.policy.environment import read

        return read(network, env, credentials)

    @property
    def off(self) -> bool:
        """Nothing may be reached: a sandbox needs no proxy at all."""
        return not self.rules

    @property
    def ends_any_tls(self) -> bool:
        """Whether a sandbox under this policy needs our certificate authority."""
        return any(rule.adds for rule in self.rules) or bool(self.references and self.rules)

    async def unlock(self) -> None:
        """Read the secrets this policy may need. Bounded.

        Raises:
            NotFound: a credential was removed since.
            StorageError: the keyring or the file does not give it.
            TimeoutError: the keyring waits for somebody.
        """
        needed = {rule.credential.id for rule in self.rules if rule.credential is not None}
        needed |= {reference.credential.id for reference in self.references}
        for credential_id in sorted(needed - self._secrets.keys()):
            if self.source is not None:
                async with asyncio.timeout(UNLOCK_S):
                    self._secrets[credential_id] = await asyncio.to_thread(self.source.secret, credential_id)

    def secret(self, credential: Credential) -> Secret:
        """Return a credential's secret after `unlock`.

        Raises:
            Refused: it was not unlocked.
        """
        found = self._secrets.get(credential.id)
        if found is None:
            raise Refused(f"the credential {credential.id!r} is not available", status=502)
        return found

    def check(self, host: str, port: int) -> Rule:
        """Return the rule that lets a canonical host and port out, the most exact one.

        Raises:
            Refused: none does; the hint says how to allow it.
        """
        found = [rule for rule in self.rules if rule.pattern.covers(host, port)]
        if found:
            return max(found, key=lambda rule: rule.pattern.rank)
        raise self._refuse(host, port)

    def lists_address(self, address: Address, port: int) -> bool:
        """Tell whether an address that is not public was listed itself."""
        return any(rule.pattern.lists_address(address, port) for rule in self.rules)

    def ends_tls(self, host: str, port: int) -> bool:
        """Tell whether the proxy must see inside this host's TLS: only where it has a secret or a header to add."""
        return self.check(host, port).adds or any(reference.trusts(host, port) for reference in self.references)

    def _refuse(self, host: str, port: int) -> Refused:
        if self.off:
            return Refused(
                "this environment's network is off",
                hint="Do the task without the network. The user can turn it on with an allow-list in the "
                'environment: {"network": {"allowlist": [{"domain": "example.org"}]}}.',
            )
        listed = ", ".join(str(rule.pattern) for rule in self.rules[:12]) + (", ..." if len(self.rules) > 12 else "")
        if any(rule.pattern.covers_host(host) for rule in self.rules):
            reason = f"port {port} of {host} is not in this environment's network allow-list"
        elif as_address(host) is not None:
            reason = f"the address {host} is not in this environment's network allow-list"
        else:
            reason = f"{host} is not in this environment's network allow-list"
        wanted = host if port in (80, 443) else authority(host, port)
        return Refused(
            reason,
            hint=f"Allowed: {listed}. Trying again does not help. The user can allow it by adding "
            f'{{"domain": "{wanted}"}} to the environment\'s network.allowlist.',
        )
