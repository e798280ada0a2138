"""What a user may set about launchers, and the words put into every sandbox's environment."""

from __future__ import annotations

from dataclasses import dataclass

from interactd.sandbox.port import Spec

PROXY_HOST, PROXY_PORT = "127.0.0.1", 3128
CA_INSIDE = "/run/interactd/ca.pem"


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults are right for nearly everybody."""

    python: str = "auto"
    """Of bubblewrap sandboxes: auto, system (/usr/bin/python3), own (the one that runs interactd), or a path."""
    cgroups: bool = True
    engine: str | None = None
    """Of container sandboxes: docker, podman or a path; None takes what is on PATH."""
    runtime: str | None = None
    """Of container sandboxes: `runsc` for gVisor; None is the engine's default."""
    image: str = "docker.io/library/python:3.12-slim"


def environment(spec: Spec, *, home: str, certificates: str | None, ca_inside: str | None = None) -> dict[str, str]:
    """Return what a sandbox's commands see as environment: ours, the proxy's, then the caller's plain values."""
    env = {
        "PATH": f"{home}/.local/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": home,
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        "PYTHONUNBUFFERED": "1",
        # Packages go below the home folder, which persists; the system's own Python is read-only anyway.
        "PIP_USER": "1",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    if spec.egress is not None:
        proxy = f"http://{PROXY_HOST}:{PROXY_PORT}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            env[name] = env[name.lower()] = proxy
        env["NO_PROXY"] = env["no_proxy"] = "localhost,127.0.0.1,::1"
        env["NODE_USE_ENV_PROXY"] = "1"
    bundle = ca_inside or certificates
    if bundle:
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")
        env |= dict.fromkeys((*names, "PIP_CERT"), bundle)
    return {**env, **spec.env}
