"""The composition root: the only place where the parts of a daemon are made and wired."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter
from typing import Any

from interactd import __version__
from interactd import paths as where
from interactd.agents import AgentFolders
from interactd.builtins.web import PolicyFetcher
from interactd.config import Config, allowed_env, load
from interactd.daemon.port import Hooks
from interactd.daemon.port import Settings as DaemonSettings
from interactd.durable.local import LocalSchedules
from interactd.durable.settings import DurableSettings
from interactd.engine.local import LocalEngine
from interactd.engine.money.money import MoneySettings
from interactd.engine.retention.clock import ClockWatch
from interactd.engine.retention.settings import RetentionSettings
from interactd.engine.settings import EngineSettings
from interactd.errors import InteractdError
from interactd.faces.build import Faces
from interactd.faces.build import build as build_faces
from interactd.models.catalog import ModelCatalog
from interactd.models.embedded import Embedded, EmbeddedSettings
from interactd.models.keys import KeyRing
from interactd.models.prices import Prices
from interactd.nouns import Json
from interactd.paths import Paths
from interactd.sandbox.credentials.store import Credentials
from interactd.sandbox.egress.ways import NetworkWays
from interactd.sandbox.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore

logger = logging.getLogger(__name__)
_FOR_EVER_S = 100 * 365 * 86_400.0


class App:
    """One daemon's parts. See `daemon.port.Application` for what the daemon expects of it."""

    def __init__(self, paths: Paths, config: Config) -> None:
        self._paths = paths
        self._config = config
        self.keys = KeyRing(allowed_env(config))
        self.catalog = ModelCatalog(
            config,
            self.keys,
            Embedded(paths, EmbeddedSettings.of(config.embedded)),
            config_file=str(paths.config_file),
        )
        store = SqliteStore(paths.database)
        self._credentials = credentials = Credentials(paths)
        watch = ClockWatch(grace_s=config.retention.of("clock_grace") or 0.0)
        self.environments = LocalEnvironments(
            paths,
            store,
            all_launchers(paths),
            ways=NetworkWays(credentials),
            keep_s=config.retention.of("environments") or _FOR_EVER_S,
            may_expire=lambda: watch.trusted,
        )
        self.schedules = LocalSchedules(
            store.schedules,
            Credentials(paths, name="webhook-secrets"),
            DurableSettings(allow=tuple(config.webhooks.allow), commands=config.webhooks.commands),
        )
        self.engine = LocalEngine(
            store,
            self.catalog,
            _engine_settings(paths, config),
            agents=AgentFolders(paths),
            environments=self.environments,
            fetcher=PolicyFetcher(credentials),
            retention=_retention_settings(paths, config),
            watch=watch,
            money=_money_settings(config),
            schedules=self.schedules,
        )
        self._faces: _KeyedFaces | None = None

    @property
    def faces(self) -> _KeyedFaces:
        """The faces; there once `attach` was called."""
        assert self._faces is not None, "attach(hooks) comes first"
        return self._faces

    @property
    def busy(self) -> int:
        """Runs, queued turns, HTTP faces that listen, active triggers, deliveries that have not arrived, and questions
        with a deadline."""
        return self.engine.busy + self.engine.holding + (len(self.faces.http.listening) if self._faces else 0)

    def attach(self, hooks: Hooks) -> None:
        """Make the faces, now that the daemon's hooks are known."""
        self._faces = _KeyedFaces(build_faces(self.engine, self._paths, self._config, hooks), self.keys)

    async def start(self) -> None:
        """Open the store and take up what was left unfinished."""
        await asyncio.to_thread(self._credentials.tidy)
        await self.engine.start()

    async def drain(self, timeout_s: float) -> bool:
        """See `engine.port.Engine.drain`."""
        return await self.engine.drain(timeout_s)

    async def aclose(self) -> None:
        """Close the faces, then the engine with its store and models."""
        if self._faces is not None:
            await self._faces.http.aclose()
        await self.engine.aclose()


class _KeyedFaces:
    """Keeps each connection's environment in the key ring for as long as the connection lives."""

    def __init__(self, faces: Faces, keys: KeyRing) -> None:
        self.http = faces
        faces.opened_by = keys.lend
        self._keys = keys
        self._open: Counter[str] = Counter()

    async def mcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None:
        """Serve one MCP connection."""
        with _Attached(self._keys, self._open, hello):
            await self.http.mcp(reader, writer, hello)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None:
        """Serve one control connection. HTTP callers use the environment of the one that opened the HTTP face."""
        with _Attached(self._keys, self._open, hello):
            await self.http.control(reader, writer, hello)


class _Attached:
    """A connection in the key ring. A shim that comes back before its old connection was noticed dead stays in it."""

    def __init__(self, keys: KeyRing, open_: Counter[str], hello: Json) -> None:
        self._keys = keys
        self._open = open_
        self._id = str(hello.get("connection") or "")
        env: Any = hello.pop("env", None)
        self._env: dict[str, str] = env if isinstance(env, dict) else {}

    def __enter__(self) -> None:
        if self._id:
            self._open[self._id] += 1
            names = self._keys.attach(self._id, self._env)
            logger.debug("connection %s brings %s", self._id, ", ".join(names) or "no keys")

    def __exit__(self, *exc: object) -> None:
        if self._id:
            self._open[self._id] -= 1
            if self._open[self._id] <= 0:
                del self._open[self._id]
                self._keys.detach(self._id)


def build(paths: Paths, config: Config | None = None) -> App:
    """Make the parts of a daemon; starts nothing.

    Args:
        paths: where everything lives.
        config: default: the user's configuration file.

    Raises:
        ConfigError: the configuration file or the environment is wrong.
    """
    return App(paths, config or load(paths))


def run_stdio(toolsets: list[str]) -> int:
    """`interactd mcp --in-process`: this process is the daemon, and serves its stdin and stdout besides the socket.

    Other hosts find it as they find any daemon. If a daemon runs already, this process relays to it: there is
    never a second one on the same data. Returns the exit code.
    """
    from interactd.daemon.lock import Lock

    paths = where.find()
    os.umask(0o077)
    try:
        paths.make()
        lock = Lock.acquire(paths)
        if lock is None:
            print("interactd: a daemon runs already; serving through it", file=sys.stderr)
            from interactd.shim.main import main as shim

            return shim(["--toolsets", ",".join(toolsets)] if toolsets else [])
        return _carry(paths, lock, toolsets)
    except InteractdError as error:
        print(f"interactd: {error.message} {error.repair or ''}".rstrip(), file=sys.stderr)
    except OSError as error:
        print(f"interactd: {error}. Is the folder writable? INTERACTD_HOME names another.", file=sys.stderr)
    return 1


def _carry(paths: Paths, lock: Any, toolsets: list[str]) -> int:
    from interactd.daemon.listen import Listener
    from interactd.daemon.log import set_level, set_up
    from interactd.daemon.main import process_facts
    from interactd.daemon.server import Daemon
    from interactd.shim import record, spawn

    config = load(paths)
    facts = process_facts(paths, spawn.own_command())
    listener = Listener(paths)
    facts["socket"] = listener.address
    record.write(paths, facts)
    # Not in the background: that would point stdout, which is the protocol here, at the log.
    set_up(paths, foreground=True)
    set_level("warning")
    application = build(paths, config)
    # The host decides when this process ends, so it never leaves by itself.
    settings = DaemonSettings(idle_exit_s=0, log_level=config.daemon.log_level)
    daemon = Daemon(paths, lock, listener, settings, facts)

    async def serve() -> None:
        carrying = asyncio.create_task(daemon.run(application))
        serving = asyncio.create_task(_serve_stdio(daemon, application, toolsets))
        try:
            # Whichever ends first ends the other: the host closes stdin, or the daemon is told to leave.
            await asyncio.wait({carrying, serving}, return_when=asyncio.FIRST_COMPLETED)
            daemon.request_stop()
            await carrying
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(serve())
    return 0


async def _serve_stdio(daemon: Any, application: App, toolsets: list[str]) -> None:
    await daemon.ready()
    await application.faces.http.stdio(toolsets)


def _session_ttl(config: Config) -> float | None:
    return config.defaults.ttl_s if config.retention.sessions is None else config.retention.of("sessions")


def _retention_settings(paths: Paths, config: Config) -> RetentionSettings:
    kept = config.retention
    return RetentionSettings(
        artifacts_s=kept.of("artifacts"),
        exports_s=kept.of("exports"),
        agents_s=kept.of("agents"),
        tombstones_s=kept.of("tombstones"),
        places={
            "artifacts": paths.data / "artifacts",
            "environments": paths.data / "environments",
            "exports": paths.data / "exports",
            "agents": paths.data / "agents",
            "imports": paths.data / "imports",
            "logs": paths.logs,
            "weights": paths.weights,
        },
    )


def _money_settings(config: Config) -> MoneySettings:
    return MoneySettings(
        Prices(config.prices),
        dict(config.budget.day),
        config.hosted.model_dump(exclude_none=True),
        {name: table.base_url for name, table in config.providers.items() if table.base_url},
    )


def _engine_settings(paths: Paths, config: Config) -> EngineSettings:
    limits = config.limits
    return EngineSettings(
        version=__version__,
        home=str(paths.data),
        default_ttl_s=_session_ttl(config) or 0,
        max_running=limits.running,
        provider_slots={
            name: provider.max_running for name, provider in config.providers.items() if provider.max_running
        },
        lease_s=config.dispatch.lease_s,
        retries=config.dispatch.retries,
        start_timeout_s=config.dispatch.start_timeout_s or None,
        timeout_s=config.dispatch.timeout_s or None,
        max_open=limits.running + limits.queued,
        max_queued=limits.queued_per_session,
        max_input_bytes=limits.input_bytes,
        max_output_bytes=limits.output_bytes,
        thinking_level=config.defaults.thinking_level,
        approvals=config.approvals or None,
    )
