"""Hostile code, through the product's own launcher, as root and as an ordinary user."""

from __future__ import annotations

import platform
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.attacks.payloads import ATTACKS as FIRST
from sandbox.attacks.payloads import Attack, source
from sandbox.attacks.shared import SHARED
from sandbox.attacks.tricks import TRICKS
from sandbox.launchers.kit import Rig, identities, remove, rigs, wait_for

ATTACKS = [*FIRST, *TRICKS, *SHARED]
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap is for Linux")


@pytest.fixture(scope="module", params=identities())
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from rigs(request.param)


@pytest.fixture(scope="module")
def facts(rig: Rig) -> Iterator[dict[str, Any]]:
    """What there is on the host to be found: a listener, sockets, a key, a process."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        name = f"interactd-decoy-{rig.process.pid}"
        abstract.bind("\0" + name)
        abstract.listen()
        with socket.socket(socket.AF_UNIX) as on_path:
            path = f"/tmp/{name}.sock"
            on_path.bind(path)
            Path(path).chmod(0o777)
            on_path.listen()
            yield {
                "port": listener.getsockname()[1],
                "abstract": name,
                "path_socket": path,
                "secret": str(rig.secret_file),
                "home": str(rig.home),
                "pid": rig.process.pid,
            }
            Path(path).unlink()


@pytest.fixture(autouse=True)
def nothing_left(rig: Rig) -> Iterator[None]:
    before = rig.left()
    yield
    assert wait_for(rig.left, lambda after: after == before) == before


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_contained(rig: Rig, facts: dict[str, Any], attack: Attack) -> None:
    if attack.machine not in (None, platform.machine()):
        pytest.skip(f"only on {attack.machine}")
    # An environment of its own: some leave one that nothing can be done in any more.
    got = rig.python(source(attack, facts), limits=attack.limits, environment=attack.name)
    remove(rig.home / attack.name)
    assert "ESCAPED" not in got.get("said", ""), got
    assert "error" not in got, got
    assert re.search(attack.expected, got["said"]), (attack.by, got)
    if attack.why:
        assert got["why"] == attack.why, got


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.control], ids=lambda attack: attack.name)
def test_the_same_attack_works_without_a_sandbox(rig: Rig, facts: dict[str, Any], attack: Attack) -> None:
    """Or the tests above would prove nothing."""
    if attack.machine not in (None, platform.machine()) or (attack.control == "root" and rig.identity != "root"):
        pytest.skip("not for this machine or user")
    code = source(attack, facts)
    got = rig.ask({"do": "control", "argv": ["/usr/bin/python3", "-c", code]})
    if attack.name in ("userfaultfd", "user_namespace") and "ESCAPED" not in got["said"]:
        pytest.skip("this machine refuses it to everybody")
    assert "ESCAPED" in got["said"], got
