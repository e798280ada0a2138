"""What an agent's code asks of the network is kept with its turn, and goes with it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from engine.agents.kit import Rig, rig, runs

pytestmark = pytest.mark.anyio

CODE = """
import urllib.request
try:
    urllib.request.urlopen("http://not-listed.example/", timeout=10)
except Exception as error:
    print(type(error).__name__)
"""


async def _asked(it: Rig) -> tuple[str, str]:
    it.agents.put(tools=("code_execution",))
    session = await it.session(environment={"network": {"allowlist": [{"domain": "listed.example"}]}})
    it.model.script(runs(CODE), "done")
    result = await it.turn(session=session)
    assert result.interaction.status == "completed", result.interaction.error
    return session.id, result.interaction.id


async def test_a_request_that_is_not_let_through_is_in_the_log_of_the_run_afterwards(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        session_id, id = await _asked(it)
        (entry,) = await it.engine.requests(id)
        assert (entry["host"], entry["port"], entry["verdict"]) == ("not-listed.example", 80, "denied")
        assert entry["reason"]
        receipt = await it.engine.delete_session(session_id)
        assert receipt.removed["request_logs"] == 1
        file = it.store.file
        db = sqlite3.connect(file)
        try:
            assert db.execute("SELECT count(*) FROM requests").fetchone() == (0,)
        finally:
            db.close()
