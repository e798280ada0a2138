"""Secrets into a request on its way out, and out of the answer on its way in."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from interactd.sandbox.egress.policy.environment import PLACEHOLDER
from interactd.sandbox.egress.policy.rules import Policy, Reference, Rule
from interactd.sandbox.egress.refusal import Refused
from interactd.sandbox.egress.wire.head import Header, values

_PLACEHOLDER = re.compile(re.escape(PLACEHOLDER) + r"[a-z0-9-]*[0-9a-f]{32}")
# Only these headers of a transform are taken for secrets: others hold plain words (a media type, a version) that a
# masked answer would miss.
_SECRET_HEADER = re.compile(r"auth|token|key|secret|cookie|passw|credential|session", re.IGNORECASE)


@dataclass(slots=True)
class Injection:
    """What one request needs: where it goes, by which rule, and the secrets that went with it so far.

    `private` tells that the way to the server is our own machine's or network's and was listed by address; only then
    may a secret travel without TLS.
    """

    policy: Policy
    rule: Rule
    host: str
    port: int
    secure: bool
    private: bool
    used: set[str] = field(default_factory=set[str], repr=False)

    def apply(self, target: str, headers: list[Header]) -> tuple[str, list[Header]]:
        """Return the request's target (origin form) and headers as the server shall get them.

        Raises:
            Refused: a placeholder stands where its credential may not go.
        """
        path, mark, query = target.partition("?")
        self._refuse_anywhere(path)
        query = self._swap(query, "query", quote_plus)
        out: list[Header] = []
        for name, value in headers:
            self._refuse_anywhere(name)
            out.append((name, self._swap_header(name, value)))
        if self.rule.credential is not None:
            name, prefix = self.rule.credential.header_name, self.rule.credential.prefix
            secret = self._use(self.policy.secret(self.rule.credential).reveal())
            out = _set(out, name, f"{prefix} {secret}" if prefix else secret)
        for name, value in self.rule.transform:
            text = value.reveal()
            if _SECRET_HEADER.search(name):
                self._use(text)
                # An echo may show the token without the word before it.
                self.used.update(part for part in text.split() if len(part) >= 8)
            out = _set(out, name, text)
        return path + mark + query, out

    def swaps_body(self, length: int | None, most: int) -> bool:
        """Tell whether a body of that length is to be looked through for placeholders."""
        trusted = any("body" in ref.locations and ref.trusts(self.host, self.port) for ref in self.policy.references)
        return trusted and length is not None and length <= most

    def swap_body(self, body: bytes, headers: list[Header]) -> bytes:
        """Return a body with its placeholders replaced, escaped as its type asks.

        Raises:
            Refused: as `apply`.
        """
        kind = (values(headers, "content-type") or [""])[0].lower()
        escape = quote_plus if "urlencoded" in kind else (_json if "json" in kind else str)
        return self._swap(body.decode("latin-1"), "body", escape).encode("latin-1")

    def mask(self) -> Mask | None:
        """Return what takes secrets out of the answer, None when there is none to be found: those of this request, and
        those that an earlier one may have left with the server for a later one to fetch."""
        left = {
            self.policy.secret(reference.credential).reveal()
            for reference in self.policy.references
            if reference.trusts(self.host, self.port)
        }
        return Mask(self.used | left) if self.used | left else None

    def _swap_header(self, name: str, value: str) -> str:
        if PLACEHOLDER in value:
            return self._swap(value, "header", str)
        scheme, _, rest = value.partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "basic":
            # A token that git or curl was given as a password travels in base64.
            try:
                plain = base64.b64decode(rest.strip(), validate=True).decode("latin-1")
            except (binascii.Error, ValueError):
                return value
            if PLACEHOLDER in plain:
                coded = base64.b64encode(self._swap(plain, "header", str).encode("latin-1")).decode("ascii")
                return f"{scheme} {self._use(coded)}"
        return value

    def _swap(self, text: str, place: str, escape: Callable[[str], str]) -> str:
        if PLACEHOLDER not in text:
            return text
        for reference in self.policy.references:
            if reference.placeholder in text:
                self._check(reference, place)
                secret = self._use(self.policy.secret(reference.credential).reveal())
                text = text.replace(reference.placeholder, escape(secret))
        _refuse_old(text)
        return text

    def _refuse_anywhere(self, text: str) -> None:
        for reference in self.policy.references:
            if reference.placeholder in text:
                raise Refused(
                    f"the placeholder of credential {reference.credential.id!r} stands where it is never replaced",
                    hint=f"It is replaced in: {', '.join(reference.locations)}.",
                )
        _refuse_old(text)

    def _check(self, reference: Reference, place: str) -> None:
        name = reference.credential.id
        if not reference.trusts(self.host, self.port):
            raise Refused(
                f"the credential {name!r} is not trusted to go to {self.host}",
                hint=f"It may go to: {', '.join(str(pattern) for pattern in reference.trusted)}. "
                "Leave it out of requests to other hosts.",
            )
        if place not in reference.locations:
            raise Refused(
                f"the credential {name!r} may not stand in the {place} of a request",
                hint=f"It is replaced in: {', '.join(reference.locations)}.",
            )

    def _use(self, secret: str) -> str:
        self._check_secure()
        self.used.add(secret)
        return secret

    def _check_secure(self) -> None:
        if not (self.secure or self.private):
            raise Refused(f"a credential for {self.host} goes over https only", hint="Use an https:// address.")


class Mask:
    """Replaces secrets by stars of the same length in a stream, so that a server that echoes a request does not
    hand its secret to the sandbox. A safety net: a trusted server could write it in a way that nobody would find."""

    def __init__(self, secrets: set[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # Longest first, so that a form within another does not leave its rest.
        self._forms = sorted((form for form in forms if len(form) >= 4), key=len, reverse=True)
        self._held = b""

    def text(self, value: str) -> str:
        """Mask one whole text, such as a header's value."""
        return self._replace(value.encode("latin-1")).decode("latin-1")

    def feed(self, data: bytes) -> bytes:
        """Mask the next piece; some bytes are held until it is known what follows."""
        data = self._replace(self._held + data)
        cut = self._boundary(data)
        self._held = data[cut:]
        return data[:cut]

    def rest(self) -> bytes:
        """Return what was held, at the end."""
        out, self._held = self._held, b""
        return out

    def _boundary(self, data: bytes) -> int:
        # Only an end that begins one of the forms is held; most pieces pass whole.
        cut = len(data)
        for form in self._forms:
            at = data.find(form[:1], max(0, len(data) - len(form) + 1))
            while 0 <= at < cut:
                if form.startswith(data[at:]):
                    cut = at
                    break
                at = data.find(form[:1], at + 1)
        return cut

    def _replace(self, data: bytes) -> bytes:
        for form in self._forms:
            if form in data:
                data = data.replace(form, b"*" * len(form))
        return data


def _forms(secret: str) -> set[bytes]:
    """How a server may write a secret without wanting to hide it."""
    texts = {secret, _json(secret), _json(secret).replace("/", "\\/"), html.escape(secret)}
    for quoted in (quote(secret, safe=""), quote_plus(secret)):
        texts |= {quoted, re.sub("%..", lambda found: found[0].lower(), quoted)}
    raw = secret.encode("latin-1")
    forms = {text.encode("latin-1") for text in texts} | {raw.hex().encode()}
    for before in range(3):
        # Within something larger base64 begins at any of three places, and its ends hold bits of the neighbours.
        coded = base64.b64encode(b"\0" * before + raw)[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
        forms |= {coded, coded.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def _refuse_old(text: str) -> None:
    if _PLACEHOLDER.search(text):
        raise Refused(
            "a credential's placeholder in this request is from an earlier run",
            hint="Placeholders are new each time: read the environment's variable again and do not keep it in files.",
        )


def _set(headers: list[Header], name: str, value: str) -> list[Header]:
    return [(key, old) for key, old in headers if key.lower() != name.lower()] + [(name, value)]


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]
