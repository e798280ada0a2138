"""All environments of one machine: made, found, used by one run at a time, stopped when idle, removed when old."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from interactd.errors import Conflict, Deleted, Expired, InteractdError, NotFound, SandboxUnavailable
from interactd.ids import new_id, parse_prefix
from interactd.nouns import Json
from interactd.paths import Paths
from interactd.sandbox.disks import Disks
from interactd.sandbox.egress.ways import NetworkWays
from interactd.sandbox.environments import body as bodies
from interactd.sandbox.environments import records
from interactd.sandbox.environments.capture import CaptureLimits
from interactd.sandbox.environments.carrying import FileCarrier
from interactd.sandbox.environments.keeping import Artifacts
from interactd.sandbox.environments.making import Base, Maker
from interactd.sandbox.environments.place import Place, Wanted
from interactd.sandbox.environments.places import Places, in_use
from interactd.sandbox.environments.reaping import Reaper
from interactd.sandbox.environments.records import KEEP_S, Records
from interactd.sandbox.environments.ways import Way, Ways
from interactd.sandbox.environments.workspace import LeasedWorkspace
from interactd.sandbox.environments_port import Artifact, Environment, Workspace
from interactd.sandbox.folder.files import Folder
from interactd.sandbox.launchers import Launchers
from interactd.sandbox.port import Isolation, Level, Mount

log = logging.getLogger(__name__)
IDLE_S: Final = 900.0
TICK_S: Final = 15.0
WAIT_S: Final = 3600.0
FORK_WAIT_S: Final = 30.0
AGENT: Final = "/agent"
CLOCK_TICK_S: Final = 0.011


class LocalEnvironments:
    """See `Environments`."""

    def __init__(
        self,
        paths: Paths,
        store: Records,
        launchers: Launchers,
        *,
        ways: Ways | None = None,
        launcher: str | None = None,
        idle_s: float = IDLE_S,
        keep_s: float = KEEP_S,
        capture_limits: CaptureLimits | None = None,
        clock: Callable[[], float] = time.time,
        images: bool = True,
        may_expire: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            images: whether new environments get a file system of their own where that can be done.
            ways: how sandboxes reach the network; by default no credential is known.
            launcher: the one to use; else the first good enough one is.
            idle_s: after how long without a run the sandbox stops (files stay).
            keep_s: after how long without a run the environment expires.
            clock: tells the time of day.
            may_expire: whether the clock can be believed enough to remove what is over by it.
        """
        self._root = paths.data / "environments"
        self._ours = tuple({Path(p).resolve() for p in (paths.data_dir, paths.state_dir, paths.config_dir)})
        self._store = store
        self._launchers = launchers
        self._launcher = launcher
        self._idle_s = idle_s
        self._keep_s = keep_s
        self._clock = clock
        self._may_expire = may_expire
        self._ways = ways or NetworkWays(None)
        self._kept = Artifacts(paths.data / "artifacts", store, capture_limits)
        self._places = Places(self._root, clock)
        self._disks = Disks(self._root, images=images, clock=clock, attend=launchers.attend)
        self._maker = Maker(self._root, self._disks, self._ways, self._choose)
        self._reaper = Reaper(self._root, store, self._disks, self._maker, self._remove)
        self.carrier = FileCarrier(self._kept, self._disks, self._maker, self._places.hold)
        self._watch: asyncio.Task[None] | None = None

    # -- life --------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        try:
            await self._launchers.reap()
        except (InteractdError, OSError) as error:
            log.warning("what a killed daemon left could not be removed: %s", error)
        await self._reaper.once()
        await self._reaper.missing()
        await self._kept.start()
        self._watch = asyncio.create_task(self._watching(), name="environments")

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(min(TICK_S, self._idle_s / 4 + 0.01))
            try:
                await self.tick()
            except Exception:
                log.exception("looking after environments failed")

    async def tick(self) -> None:
        """Stop what was idle too long, and remove what expired or a dead daemon left unfinished. Called every 15 s."""
        now = self._clock()
        moved = await self._places.moved()
        for place in self._places.idle():
            # Another's stopping may have taken a while.
            if not self._places.wanted(place.id) and (place.used_at + self._idle_s <= now or place.id in moved):
                async with place.lock:
                    await place.stop()
                    await self._disks.close(place.id)
                if not place.waiting:
                    self._places.forget(place.id)
        await self._disks.close_idle(self._idle_s, lambda id: id in self._places)
        await self._reaper.once()
        if not self._may_expire():
            return
        for row in await self._store.list_environments(expired_at=now, limit=100):
            if await self._user(row["id"]) is None:
                # It may be gone, or in use again, by the time that it is had.
                with contextlib.suppress(Conflict, Deleted, Expired, NotFound):
                    await self._end(row, "expiring")
        await self._kept.sweep_zips()

    async def aclose(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._places.stop()
        await self._launchers.aclose()
        await self._disks.aclose()
        await self._kept.aclose()

    # -- making and finding ------------------------------------------------------------------------------------------
    async def create(
        self, body: Mapping[str, Any], *, owner: str = "local", cwd: str | None = None, made_for: str | None = None
    ) -> Environment:
        wanted = await asyncio.to_thread(bodies.read, body, cwd, self._ours)
        base: Json | None = None
        if wanted.from_environment is not None:
            base = await self._active(wanted.from_environment, owner)
        kept: Json = dict(base["body"]) if base else {}
        content: Json = {
            "sources": [*(kept.get("sources") or []), *(source.as_dict() for source in wanted.sources)],
            "env": wanted.env if wanted.env is not None else kept.get("env") or {},
            "network": wanted.network if wanted.network_given else kept.get("network"),
            "limits": wanted.limits if wanted.limits is not None else kept.get("limits") or {},
            # A fork can only be stricter: its files are the other one's.
            "approvals": [*(kept.get("approvals") or []), *([wanted.approvals] if wanted.approvals else [])],
            "mounts": [
                *(kept.get("mounts") or []),
                *(
                    {"source": str(source.folder), "target": source.as_dict()["target"]}
                    for source in wanted.sources
                    if source.mount
                ),
            ],
            **({"made_for": made_for} if made_for else {}),
        }
        self._ways.check(content["network"], content["env"])
        await self._store.check()
        now = self._clock()
        row: Json = {
            "id": new_id("environment"),
            "owner": owner,
            "status": "creating",
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + self._keep_s,
            "forked_from": base["id"] if base else None,
            "size_bytes": None,
            "file_count": None,
            "body": content,
        }
        with contextlib.closing(await self._maker.begin(row["id"])):
            await self._fill(row, wanted, base)
        return records.environment(row)

    async def _fill(self, row: Json, wanted: bodies.Wanted, base: Json | None) -> None:
        content: Json = row["body"]
        try:
            await self._store.put_environment(row)
            async with contextlib.AsyncExitStack() as stack:
                original: Base | None = None
                if base is not None:
                    await stack.enter_async_context(self._places.hold(base["id"], f"fork {row['id']}", FORK_WAIT_S))
                    held = await self._active(base["id"], row["owner"])
                    rooms = await stack.enter_async_context(self._disks.open(base["id"], _disk_mb(held)))
                    original = Base(base["id"], rooms)
                await self._maker.make(
                    row["id"], wanted.sources, bodies.limits_from(content["limits"]), content, original
                )
            row["status"] = "active"
            await self._store.put_environment(row)
        except BaseException:
            await asyncio.shield(self._unmake(row["id"]))
            raise

    async def check(self, body: Mapping[str, Any], *, owner: str = "local", cwd: str | None = None) -> None:
        wanted = await asyncio.to_thread(bodies.read, body, cwd, self._ours)
        if wanted.from_environment is not None:
            await self._active(wanted.from_environment, owner)
        self._ways.check(wanted.network, wanted.env or {})

    async def _unmake(self, id: str) -> None:
        await self._maker.remove(id)
        await self._store.forget_environment(id)

    async def get(self, environment_id: str, *, owner: str = "local") -> Environment:
        row = await self._active(environment_id, owner)
        found = records.environment(row)
        found.size_bytes, found.file_count = await self._maker.measure(row["id"], _disk_mb(row))
        return found

    async def list(self, *, owner: str = "local", limit: int = 50, cursor: str | None = None) -> list[Environment]:
        after = None if cursor is None else await self._whole(cursor)
        rows = await self._store.list_environments(owner=owner, limit=max(1, min(limit, 1000)), after=after)
        now = self._clock()
        return [records.environment(row) for row in rows if row["expires_at"] > now or self._places.in_use(row["id"])]

    async def files(
        self, environment_id: str, path: str = ".", *, recursive: bool = False, limit: int = 1000, owner: str = "local"
    ) -> list[Json]:
        row = await self._active(environment_id, owner)

        def look(workspace: Path) -> list[Json]:
            with contextlib.closing(Folder(workspace)) as folder:
                return folder.list(path, recursive=recursive, limit=limit)

        async with self._disks.open(row["id"], _disk_mb(row)) as rooms:
            return await asyncio.to_thread(look, rooms.workspace)

    async def delete(self, environment_id: str, *, owner: str = "local") -> Json:
        id = await self._whole(environment_id)
        row = await self._store.get_environment(id)
        if row is not None and row["status"] == "deleted" and row["owner"] == owner and row["body"].get("receipt"):
            return row["body"]["receipt"]
        row = await self._active(id, owner)
        if (user := await self._user(id)) is not None:
            raise in_use(id, user)
        return await self._end(row, "deleting")

    async def _end(self, row: Json, status: str) -> Json:
        async with self._places.hold(row["id"], status, FORK_WAIT_S) as place:
            row = await self._store.get_environment(row["id"]) or row
            if row["status"] != "active":
                raise records.gone(row, row["id"])
            if status == "expiring" and row["expires_at"] > self._clock():
                raise Conflict(f"environment {row['id']} was used again")
            row["status"] = status
            await self._store.put_environment(row)
            await place.stop()
            return await self._remove(row)

    async def _remove(self, row: Json) -> Json:
        """Remove the files of a row that says so already, then leave its tombstone."""
        size = files = 0
        try:
            size, files = await self._maker.measure(row["id"], _disk_mb(row))
        except (InteractdError, OSError) as error:
            # It goes all the same: what cannot be read is what its owner wants to be rid of.
            log.warning("environment %s could not be measured: %s", row["id"], error)
        await self._maker.remove(row["id"])
        receipt: Json = {
            "id": new_id("receipt"),
            "environment_id": row["id"],
            "deleted_at": self._clock(),
            "removed": {"files": files, "bytes": size},
        }
        status = "expired" if row["status"] == "expiring" else "deleted"
        gone = records.tombstone(row, status, receipt)
        self._places.forget(row["id"])
        if not await self._store.put_environment(gone, unless=("deleted", "expired")):
            # Its folder was gone, and with it the claim on it, before its row: another daemon was as fast.
            row = await self._store.get_environment(row["id"]) or gone
            return row["body"].get("receipt") or receipt
        return receipt

    # -- using -------------------------------------------------------------------------------------------------------
    def lease(
        self,
        environment_id: str,
        interaction_id: str,
        *,
        requires: Mapping[str, Level] | None = None,
        agent_folder: Path | None = None,
    ) -> AbstractAsyncContextManager[Workspace]:
        return self._lease(environment_id, interaction_id, requires or {}, agent_folder)

    @asynccontextmanager
    async def _lease(
        self, environment_id: str, interaction_id: str, requires: Mapping[str, Level], agent_folder: Path | None
    ) -> AsyncGenerator[Workspace]:
        row = await self._active(environment_id, None)
        id: str = row["id"]
        async with self._places.hold(id, interaction_id, WAIT_S) as place, self._at_hand(place) as row:
            quota = place.rooms is not None and place.rooms.quota is not None
            asked: dict[str, Level] = {n: level for n, level in requires.items() if not (quota and n == "disk")}
            launcher = await self._launchers.choose(self._launcher, asked)
            expected = (await self._launchers.capability(launcher)).isolation
            if expected is None:
                raise SandboxUnavailable(f"{launcher.name} says nothing of what it isolates")
            if quota:
                expected = expected.with_quota()
            content: Json = row["body"]
            since = await self._begin(row, interaction_id)
            mounted: list[Json] = content.get("mounts") or []
            mounts = [Mount(Path(one["source"]), one["target"]) for one in mounted]
            if agent_folder is not None:
                mounts.append(Mount(agent_folder, AGENT))
            wanted = Wanted(
                launcher,
                bodies.limits_from(content.get("limits") or {}),
                tuple(mounts),
                json.dumps([content.get("network"), content.get("env")], sort_keys=True),
            )
            place.kernel_used = place.kernel_used or bool(content.get("kernel_used"))
            workspace = LeasedWorkspace(
                records.environment(row),
                place,
                wanted,
                expected,
                open_way=partial(self._open_way, place, content),
                capture=partial(self._capture, place, since),
                requires=partial(_require, requires),
            )
            well = False
            try:
                yield workspace
                well = True
            finally:
                await asyncio.shield(self._give_back(place, workspace, well=well))

    @asynccontextmanager
    async def _at_hand(self, place: Place) -> AsyncGenerator[Json]:
        """Have the files of a place, and its row, as it is now that nobody else has it."""
        row = await self._active(place.id, None)
        try:
            async with self._disks.open(place.id, _disk_mb(row)) as rooms:
                place.rooms = rooms
                yield row
        finally:
            if place.rooms is not None and place.rooms.quota is not None and place.rooms.quota.trouble():
                await asyncio.shield(self._leave(place))

    async def _leave(self, place: Place) -> None:
        """Give a disk back that is in trouble: it is looked over when it is mounted again."""
        await place.stop()
        await self._disks.close(place.id)

    async def _begin(self, row: Json, interaction_id: str) -> int:
        """Note the use, and return from when on a changed file is this run's."""
        began = time.time_ns()
        since = records.begin_run(row, interaction_id, began)
        row["last_used_at"] = self._clock()
        row["expires_at"] = row["last_used_at"] + self._keep_s
        await self._store.put_environment(row)
        # Files carry a clock that stands still for up to 10 ms: it has to have passed `began`.
        await asyncio.sleep(CLOCK_TICK_S)
        return since

    async def _open_way(self, place: Place, content: Json) -> Way:
        return await self._ways.open(content.get("network"), content.get("env") or {}, place.folder)

    async def _capture(self, place: Place, since: int, interaction_id: str) -> tuple[list[Artifact], list[Json]]:
        return await self._kept.capture(place.workspace, interaction_id, place.id, since)

    async def _give_back(self, place: Place, workspace: LeasedWorkspace, *, well: bool) -> None:
        await workspace.over()
        if not well:
            # Cancelled or failed: whatever may still be going on ends with its sandbox.
            await place.stop()
        await place.settle()
        place.touch()
        await self._disks.keep_or_say(place.id)
        row = await self._store.get_environment(place.id)
        if row is not None and row["status"] == "active":
            row["last_used_at"] = self._clock()
            row["expires_at"] = row["last_used_at"] + self._keep_s
            row["body"] = {**row["body"], "kernel_used": place.kernel_used}
            await self._store.put_environment(row)

    # -- artifacts ---------------------------------------------------------------------------------------------------
    async def artifacts(self, interaction_id: str) -> list[Artifact]:
        return await self._kept.list(interaction_id)

    async def left_out(self, interaction_id: str) -> list[Json]:
        return await self._kept.left_out(interaction_id)

    async def read_artifact(
        self, interaction_id: str, name: str, *, offset: int = 0, limit: int = 1_000_000
    ) -> tuple[Artifact, bytes]:
        return await self._kept.read(interaction_id, name, offset, limit)

    async def zip_artifacts(self, interaction_id: str, names: list[str]) -> Artifact:
        return await self._kept.zip(interaction_id, names)

    async def delete_artifacts(self, session_id: str) -> int:
        return await self._kept.collect()

    async def launchers(self) -> list[Json]:
        quota = await self._disks.why_not() is None
        return [
            {
                "launcher": found.launcher,
                "usable": found.usable,
                "why": found.why,
                "fix": found.fix,
                "isolation": isolation.as_dict() if (isolation := found.isolation_with(quota=quota)) else None,
            }
            for found in await self._launchers.capabilities()
        ]

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _user(self, id: str) -> str | None:
        """Who has an environment, in whichever daemon, or is next to have it here."""
        return await self._places.holder(id) or ("another run" if self._places.wanted(id) else None)

    async def _choose(self) -> Any:
        return await self._launchers.choose(self._launcher)

    async def _whole(self, id: str) -> str:
        return await self._store.find("environment", parse_prefix("environment", id))

    async def _active(self, id: str, owner: str | None) -> Json:
        whole = await self._whole(id)
        row = await self._store.get_environment(whole)
        if row is None or (owner is not None and row["owner"] != owner):
            raise NotFound(f"there is no environment {whole}", kind="environment", id=whole)
        if row["status"] != "active" or (row["expires_at"] <= self._clock() and not self._places.in_use(whole)):
            raise records.gone(row, whole)
        return row


def _disk_mb(row: Json) -> int:
    return bodies.limits_from(row["body"].get("limits") or {}).disk_mb


def _require(requires: Mapping[str, Level], isolation: Isolation) -> None:
    weak = isolation.below(requires)
    if weak:
        raise SandboxUnavailable(
            f"the sandbox that started is weaker than required: {'; '.join(weak)}",
            repair="Lower what the agent requires, or see `interactd doctor` for how to make the sandbox stronger.",
        )
