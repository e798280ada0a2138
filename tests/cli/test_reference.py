"""The command line's page is made from the parser, never typed twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interactd.cli import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help differently in other versions")
def test_the_page_says_what_the_parser_says() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m interactd.cli.reference > docs/cli.md"
