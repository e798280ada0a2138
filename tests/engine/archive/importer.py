"""Imports an archive into a home, and kills itself at one of its writes.

importer.py HOME ARCHIVE NUMBER before|after     the write is counted from 0
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from engine.archive.world import world


async def main(home: str, archive: str, number: int, when: str) -> None:
    async with world(Path(home)) as it:
        of_store: Any = it.store.archive
        write, count = of_store._write, 0

        async def counted(run: Any, **more: Any) -> Any:
            nonlocal count
            if count == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = await write(run, **more)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return result

        of_store._write = counted
        done = await it.engine.import_data(archive)
        assert done is not None
        print(count, flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
