"""Which embedded models there are on this machine, and one child for each that is in use."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2

from interactd.errors import InvalidArgument, NotSetUp, ProviderUnavailable
from interactd.models.embedded.log import ChildLog
from interactd.models.embedded.model import PROVIDER, EmbeddedModel
from interactd.models.embedded.runner import Runner, Server, client
from interactd.models.embedded.settings import EmbeddedSettings
from interactd.models.embedded.weights import files
from interactd.models.embedded.weights.files import Cancel, Progress
from interactd.models.embedded.weights.table import TABLE, Weights, lookup
from interactd.models.port import ModelInfo
from interactd.paths import Paths

FILE = "file:"
_CHECKS_ONLY = "smollm2-135m"
_MAGIC = b"GGUF"
_PROBE_S = 2.0
_LABEL = "an offline fallback for small tasks, not a recommendation"


class Embedded:
    """The provider `embedded`. Made on the event loop that uses it; `aclose` ends every child."""

    def __init__(self, paths: Paths, settings: EmbeddedSettings | None = None) -> None:
        self._folder = paths.weights
        self._settings = settings or EmbeddedSettings()
        self._extra = self._settings.weights_folder()
        self._log = ChildLog(paths.logs / "embedded.log")
        self._runners: dict[Path, Runner] = {}
        self._remote: Server | None = None

    def ready(self) -> bool:
        """Say whether `resolve("auto")` can work now. Looks at names and sizes only; imports and reads nothing."""
        return self.why_not() is None

    def why_not(self) -> str | None:
        """Return one sentence with what is missing and the command that brings it, or None if nothing is."""
        if self._settings.url:
            return None
        try:
            self._need_runtime()
            self._pick()
        except NotSetUp as error:
            return f"{error.message} {error.repair}"
        return None

    async def resolve(self, name: str = "auto") -> EmbeddedModel:
        """Find a model; starts nothing.

        Args:
            name: `embedded`, `embedded/auto`, `embedded/NAME`, `embedded/file:/path/to/model.gguf`, or the part
                after the slash.

        Raises:
            UnknownModel: no such name in the table.
            NotSetUp: the runtime or the weights are missing; the repair has the exact command.
            InvalidArgument: the file given is not a GGUF file.
            ProviderUnavailable: `url` is configured and does not answer.
        """
        wanted = "auto" if name == PROVIDER else name.removeprefix(f"{PROVIDER}/") or "auto"
        if self._settings.url:
            return await self._resolve_remote(self._settings.url, wanted)
        self._need_runtime()
        if wanted == "auto":
            wanted = self._pick()
        if wanted.startswith(FILE):
            path = await asyncio.to_thread(_own_file, wanted)
            return self._model(f"{FILE}{path}", path, path.stat().st_size * 5 // 4 + 150_000_000)
        entry = lookup(wanted)
        path = files.find(entry, self._folder, self._extra)
        if path is None:
            raise self._missing(entry)
        if path not in self._runners and not await asyncio.to_thread(self._is_right, path, entry):
            raise NotSetUp(
                f"{path} is damaged: it is not the file that its name says.",
                repair=f"Delete it and run `{_command(entry)}`.",
            )
        return self._model(entry.name, path, entry.ram)

    async def list(self) -> list[ModelInfo]:
        """One line a model: set up or not, and what to do. The one for tests shows only if somebody fetched it."""
        if self._settings.url:
            return [await self._remote_info(self._settings.url)]
        chosen = None
        with contextlib.suppress(NotSetUp):
            self._need_runtime()
            chosen = self._pick()
        lines = [
            self._info(entry, chosen=chosen)
            for entry in TABLE.values()
            if entry.name != _CHECKS_ONLY or self._found(entry) or self._settings.model == entry.name
        ]
        if chosen and chosen.startswith(FILE):
            lines.insert(0, ModelInfo(f"{PROVIDER}/{chosen}", PROVIDER, True, "a file of yours", True, True))
        return lines

    def status(self) -> list[dict[str, Any]]:
        """What runs now: `{"model", "state" (stopped|loading|ready|busy), "pid"}` for each model used so far."""
        return [{"model": run.name, "state": run.state, "pid": run.pid} for run in self._runners.values()]

    async def unload(self) -> None:
        """Stop every child that nobody uses now."""
        await asyncio.gather(*(runner.unload() for runner in self._runners.values()))

    async def aclose(self) -> None:
        """Stop every child within about two seconds; leaves no process."""
        await asyncio.gather(*(runner.aclose() for runner in self._runners.values()))
        if self._remote is not None:
            await self._remote.client.aclose()
        self._log.close()

    def _model(self, name: str, path: Path, ram: int) -> EmbeddedModel:
        runner = self._runners.get(path)
        if runner is None:
            runner = Runner(name, path, ram, self._settings, self._log, self.unload)
            self._runners[path] = runner
        return EmbeddedModel(name, self._settings.context, runner.lease, self._settings)

    def _found(self, entry: Weights) -> Path | None:
        return files.find(entry, self._folder, self._extra)

    def _is_right(self, path: Path, entry: Weights) -> bool:
        return files.is_right(path, entry, self._folder, _unseen, Cancel())

    def _need_runtime(self) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise NotSetUp(
                "The runtime of the embedded model (xllamacpp) is not installed.",
                repair="Run `pip install 'interactd[embedded]'`.",
            )

    def _pick(self) -> str:
        """The model that `auto` means: the configured one, else another that is set up and fit to answer."""
        wanted = self._settings.model
        if wanted.startswith(FILE):
            return wanted
        default = lookup(wanted)
        for entry in (default, *TABLE.values()):
            if (entry is default or entry.name != _CHECKS_ONLY) and self._found(entry):
                return entry.name
        raise self._missing(default)

    def _missing(self, entry: Weights) -> NotSetUp:
        return NotSetUp(
            f"The weights of {PROVIDER}/{entry.name} are not on this machine.",
            repair=f"Run `{_command(entry)}` once ({entry.bytes // 1_000_000} MB), or use another model.",
        )

    def _info(self, entry: Weights, *, chosen: str | None) -> ModelInfo:
        found = self._found(entry)
        if importlib.util.find_spec("xllamacpp") is None:
            detail = "runtime missing: pip install 'interactd[embedded]'"
        elif found is None:
            detail = f"not fetched: {_command(entry)} ({entry.bytes // 1_000_000} MB)"
        else:
            label = "for tests and checks only, answers are not usable" if entry.name == _CHECKS_ONLY else _LABEL
            detail = f"set up; {label}"
        available = detail.startswith("set up")
        return ModelInfo(
            f"{PROVIDER}/{entry.name}", PROVIDER, available, detail, True, entry.name == chosen, self._settings.context
        )

    async def _resolve_remote(self, url: str, wanted: str) -> EmbeddedModel:
        server = self._server(url)
        try:
            listed = await server.client.get("/v1/models", timeout=_PROBE_S)
            listed.raise_for_status()
            names = [str(each["id"]) for each in listed.json()["data"]]
            props = await server.client.get("/props", timeout=_PROBE_S)
            settings: Any = props.json().get("default_generation_settings", {}) if props.status_code == 200 else {}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderUnavailable(
                f"The server configured for the embedded model ({url}) does not answer as one: "
                f"{error or type(error).__name__}.",
                repair="Start it, or remove `url` from the [embedded] section.",
            ) from error
        name = (names[0].rpartition("/")[2] if names else "unnamed") if wanted == "auto" else wanted
        window: Any = settings.get("n_ctx")

        @contextlib.asynccontextmanager
        async def lease() -> AsyncGenerator[Server]:
            yield server

        return EmbeddedModel(name, window if isinstance(window, int) else None, lease, self._settings)

    async def _remote_info(self, url: str) -> ModelInfo:
        try:
            model = await self._resolve_remote(url, "auto")
        except ProviderUnavailable as error:
            return ModelInfo(f"{PROVIDER}/auto", PROVIDER, False, f"{error.message} {error.repair}", True)
        return ModelInfo(model.label, PROVIDER, True, f"answers on {url}", True, True, model.context_window)

    def _server(self, url: str) -> Server:
        if self._remote is None:
            self._remote = Server(client(url.rstrip("/").removesuffix("/v1"), self._settings.api_key, self._settings))
        return self._remote


def _command(entry: Weights) -> str:
    return "interactd setup" + ("" if entry.name == EmbeddedSettings().model else f" --model {entry.name}")


def _own_file(given: str) -> Path:
    path = Path(given.removeprefix(FILE)).expanduser()
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise InvalidArgument(
            f"model: {path} cannot be read: {error.strerror}.", repair="Give the path of a .gguf file.", field="model"
        ) from error
    if not path.is_absolute() or magic != _MAGIC:
        raise InvalidArgument(
            f"model: {path} is not a GGUF file given by its whole path.",
            repair="Use embedded/file:/whole/path/to/model.gguf.",
            field="model",
        )
    return path.resolve()


def _unseen(progress: Progress) -> None:
    del progress
