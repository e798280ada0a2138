"""The control protocol's methods for what is kept: exports, imports, times to live, sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from interactd.engine.archive.answers import Exported, Imported
from interactd.engine.port import Engine
from interactd.faces.arguments import arguments_of
from interactd.faces.wire import iso
from interactd.nouns import Caller, Json

Emit = Callable[[Json], Awaitable[None]]
Call = Callable[[Engine, Json, Emit, Caller], Awaitable[Any]]


def exported(value: Exported) -> Json:
    """A finished export."""
    return {
        "path": str(value.path),
        "size_bytes": value.size_bytes,
        "sha256": value.sha256,
        "created_at": iso(value.created_at),
        "counts": value.counts,
        "notes": value.notes,
    }


def imported(value: Imported) -> Json:
    """What an import did, or would do."""
    return {
        "path": str(value.path),
        "dry_run": value.dry_run,
        "counts": value.counts,
        "sessions": value.sessions,
        "skipped": value.skipped,
        "mapping": value.mapping,
        "notes": value.notes,
    }


def _long(port: Callable[..., Any], shape: Callable[[Any], Json]) -> Call:
    """A method that takes long: it says how far it is, and ends when the peer goes away."""

    async def call(engine: Engine, params: Json, emit: Emit, caller: Caller) -> Any:
        bound = {name: value for name, value in arguments_of(port).bind(params).items() if name != "progress"}
        said: asyncio.Queue[Json] = asyncio.Queue()

        def tell(what: str, count: int) -> None:
            said.put_nowait({"what": what, "count": count})

        bound["progress"] = tell
        work = asyncio.create_task(getattr(engine, port.__name__)(**bound, caller=caller))
        listening = asyncio.create_task(said.get())
        try:
            while not work.done():
                await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done():
                    await emit(listening.result())
                    listening = asyncio.create_task(said.get())
            return shape(work.result())
        finally:
            listening.cancel()
            work.cancel()
            await asyncio.gather(listening, work, return_exceptions=True)

    return call


def _plain(port: Callable[..., Any]) -> Call:
    async def call(engine: Engine, params: Json, emit: Emit, caller: Caller) -> Any:
        del emit
        return await getattr(engine, port.__name__)(**arguments_of(port).bind(params), caller=caller)

    return call


METHODS: Final[dict[str, Call]] = {
    "export_data": _long(Engine.export_data, exported),
    "import_data": _long(Engine.import_data, imported),
    "keep_session": _plain(Engine.keep_session),
    "storage": _plain(Engine.storage),
    "vacuum": _plain(Engine.vacuum),
}
