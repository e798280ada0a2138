"""The whole product, killed at random moments of turns: hosts keep their connections, turns end exactly once."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from chaos.party import a_party

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="SIGKILL")]
VICTIMS = ("daemon", "daemon", "shim", "both")


async def run_party(root: Path, rounds: int, seed: int) -> None:
    print(f"seed {seed}")
    async with a_party(root, seed) as party:
        for number in range(rounds):
            await party.round(number, VICTIMS[number % len(VICTIMS)])
        repeated = party.judge()
        print(f"{dict(party.kills)}, {len(party.sent)} turns, {repeated} provider calls made again")
        assert party.kills["daemon"] >= rounds // 2
        assert repeated > 0, "the kills missed the model calls: they prove nothing"


@pytest.mark.timeout(300)
async def test_hosts_and_turns_outlive_twenty_kills(tmp_path: Path) -> None:
    await run_party(tmp_path / "home", 20, random.randrange(1 << 30))


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_hosts_and_turns_outlive_two_hundred_kills(tmp_path: Path) -> None:
    await run_party(tmp_path / "home", 270, random.randrange(1 << 30))
