from __future__ import annotations

from pathlib import Path

import pytest

from support.agent_folders import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.project.mkdir()
    return made
