"""Names to models: what is found, with which key, and what people read when something is missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from interactd.errors import (
    ConfigError,
    InteractdError,
    KeyRefused,
    MissingKey,
    UnknownModel,
)
from interactd.models import known
from interactd.models.keys import KeyRing
from interactd.models.port import Finished, ModelRequest
from interactd.models.transport import HttpModel
from interactd.nouns import user_input
from models.catalog_kit import KEY, Embedded, Shelf, error_of, fake, far, free_port, shelf
from support.provider import FakeProvider, Fault, Raw

__all__ = ["fake", "shelf"]

pytestmark = pytest.mark.anyio


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("openai/gpt-5.5", "openai/gpt-5.5"),
        ("OpenAI/gpt-5.5", "openai/gpt-5.5"),
        (" openai/gpt-5.5\n", "openai/gpt-5.5"),
        ("openrouter/meta/llama-4:free", "openrouter/meta/llama-4:free"),
        ("ollama/qwen3:8b", "ollama/qwen3:8b"),
        ("ollama/llama3.3", "ollama/llama3.3:latest"),
        ("qwen3:8b", "ollama/qwen3:8b"),
        ("llama3.3", "ollama/llama3.3:latest"),
        ("gpt-5", "openai/gpt-5"),
        ("o3", "openai/o3"),
        ("claude-sonnet-5", "anthropic/claude-sonnet-5"),
        ("gemini-3.5-flash", "gemini/gemini-3.5-flash"),
        ("meta/llama-4:free", "openrouter/meta/llama-4:free"),
        ("anthropic", f"anthropic/{known.DEFAULTS['anthropic']}"),
        ("ollama", "ollama/qwen3:8b"),
    ],
)
async def test_a_name_finds_its_model(given: str, label: str, shelf: Shelf, fake: FakeProvider) -> None:
    text = """
    [providers.openrouter]
    kind = "openai-chat"
    base_url = "https://openrouter.ai/api/v1"
    api_key_env = "OPENROUTER_API_KEY"
    models = ["meta/llama-4:free"]
    """
    names = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY")
    catalog = shelf(text, own=dict.fromkeys(names, KEY), ollama=fake.base_url)
    assert (await catalog.resolve(given)).label == label


async def test_a_resolved_model_answers(shelf: Shelf, fake: FakeProvider) -> None:
    fake.script("hello")
    found = await shelf(ollama=fake.base_url + "/v1/").resolve("ollama/qwen3:8b")
    events = [event async for event in found.stream(ModelRequest(found.name, [user_input("hi")]))]
    assert isinstance(events[-1], Finished)
    assert fake.requests[0].json["model"] == "qwen3:8b"


@pytest.mark.parametrize(
    ("given", "suggestion"),
    [
        ("opanai/gpt-5.5", "openai/gpt-5.5"),
        ("ollama/qwen3:8", "ollama/qwen3:8b"),
        ("qwen3:8", "ollama/qwen3:8b"),
        ("lama3.3", "ollama/llama3.3:latest"),
    ],
)
async def test_an_unknown_name_gets_suggestions(given: str, suggestion: str, shelf: Shelf, fake: FakeProvider) -> None:
    error = await error_of(shelf(ollama=fake.base_url), given)
    assert isinstance(error, UnknownModel)
    assert suggestion in error.fields["suggestions"]
    assert suggestion in (error.repair or "")


@pytest.mark.parametrize(
    "given", ["", "  ", "x" * 300, "a\x00b", "bad\ud800name", "a\nb", "/", "openai/", "nobody-knows"]
)
async def test_nonsense_is_an_unknown_model_that_can_be_shown(given: str, shelf: Shelf) -> None:
    error = await error_of(shelf(), given)
    assert isinstance(error, UnknownModel)
    assert len(error.message.encode()) < 400


async def test_a_name_that_two_providers_list_must_be_told_apart(shelf: Shelf, fake: FakeProvider) -> None:
    async with FakeProvider(models=["qwen3:8b"]) as other:
        catalog = shelf(ollama=fake.base_url, vllm=other.base_url)
        error = await error_of(catalog, "qwen3:8b")
        assert isinstance(error, UnknownModel)
        assert error.fields["suggestions"] == ["ollama/qwen3:8b", "vllm/qwen3:8b"]


async def test_a_model_outside_the_configured_list_is_refused(shelf: Shelf) -> None:
    text = '[providers.openai]\nmodels = ["gpt-5.5"]'
    error = await error_of(shelf(text, own={"OPENAI_API_KEY": KEY}), "openai/gpt-5.4")
    assert isinstance(error, UnknownModel)
    assert error.fields["suggestions"] == ["openai/gpt-5.5"]


async def test_a_provider_that_is_switched_off_says_so(shelf: Shelf) -> None:
    error = await error_of(shelf("[providers.openai]\nenabled = false", own={"OPENAI_API_KEY": KEY}), "openai/gpt-5.5")
    assert "switched off" in error.message


async def test_the_embedded_model_is_asked_by_its_own_name(shelf: Shelf) -> None:
    catalog = shelf(embedded=Embedded(True))
    assert (await error_of(catalog, "embedded/some:thing/else")).message == "embedded asked for some:thing/else"
    assert (await error_of(catalog, "embedded")).message == "embedded asked for auto"
    assert (await error_of(catalog, "tiny")).message == "embedded asked for tiny"


# -- keys and addresses ----------------------------------------------------------------------------------------------


async def test_a_missing_key_names_the_variable_and_where_to_set_it(shelf: Shelf) -> None:
    error = await error_of(shelf(), "anthropic/claude-sonnet-5")
    assert isinstance(error, MissingKey)
    assert "ANTHROPIC_API_KEY" in error.message
    assert "api_key_env under [providers.anthropic]" in (error.repair or "")


async def test_a_callers_own_key_is_used_and_no_other_hosts(shelf: Shelf, fake: FakeProvider) -> None:
    text = f'[providers.gw]\nkind = "anthropic"\nbase_url = "{fake.base_url}"\napi_key_env = "GW_KEY"\n'
    ring = KeyRing(["GW_KEY"], own={})
    ring.attach("con_a", {"GW_KEY": "key-of-host-a"})
    ring.attach("con_b", {"GW_KEY": "key-of-host-b"})
    catalog = shelf(text, ring=ring)
    for connection in ("con_a", "con_b"):
        fake.script("hi")
        found = await catalog.resolve("gw/m", connection=connection)
        assert [event async for event in found.stream(ModelRequest("m", [user_input("hi")]))]
    assert [request.headers["x-api-key"] for request in fake.requests] == ["key-of-host-a", "key-of-host-b"]


async def test_a_hosts_address_never_gets_the_daemons_key(shelf: Shelf, fake: FakeProvider) -> None:
    ring = KeyRing(own={"ANTHROPIC_API_KEY": KEY})
    ring.attach("con_a", {"ANTHROPIC_BASE_URL": fake.base_url})
    fake.default = "hi"
    found = await shelf('[providers.anthropic]\nmodels = ["m"]', ring=ring).resolve("anthropic/m", connection="con_a")
    assert [event async for event in found.stream(ModelRequest("m", [user_input("hi")]))]
    assert "x-api-key" not in fake.requests[0].headers


async def test_a_key_file_is_read_each_time(shelf: Shelf, fake: FakeProvider, tmp_path: Path) -> None:
    file = tmp_path / "key"
    text = f'[providers.gw]\nkind = "openai-chat"\nbase_url = "{fake.base_url}"\napi_key_file = "{file}"\n'
    catalog = shelf(text)
    error = await error_of(catalog, "gw/m")
    assert isinstance(error, MissingKey)
    assert str(file) in error.message
    for key in ("first-key", "second-key"):
        file.write_text(f"  {key}\n")
        fake.script(Fault(401, f"wrong key {key}"))
        found = await catalog.resolve("gw/m")
        with pytest.raises(KeyRefused) as caught:
            _ = [event async for event in found.stream(ModelRequest("m", [user_input("hi")]))]
        assert key not in caught.value.message
        assert fake.requests[-1].headers["authorization"] == f"Bearer {key}"


async def test_a_key_is_not_sent_in_the_clear_to_another_machine(shelf: Shelf) -> None:
    text = '[providers.gw]\nkind = "openai-chat"\nbase_url = "http://192.0.2.1/v1"\napi_key_env = "OPENAI_API_KEY"\n'
    error = await error_of(shelf(text, own={"OPENAI_API_KEY": KEY}), "gw/m")
    assert isinstance(error, ConfigError)
    assert "allow_http = true" in error.message
    allowed = shelf(text + "allow_http = true\n", own={"OPENAI_API_KEY": KEY})
    assert (await allowed.resolve("gw/m")).label == "gw/m"


@pytest.mark.parametrize("value", ["https://user:secret@x.example", "not an address", "ftp://x.example"])
async def test_a_wrong_address_in_the_environment_is_named_but_not_repeated(value: str, shelf: Shelf) -> None:
    error = await error_of(shelf(own={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": value}), "openai/m")
    assert isinstance(error, ConfigError)
    assert "OPENAI_BASE_URL" in error.message
    assert value not in error.message


@pytest.mark.parametrize(("url", "path"), [("", "/v1/chat/completions"), ("/v1", "/v1/chat/completions")])
async def test_openais_address_elsewhere_means_chat_completions(
    url: str, path: str, shelf: Shelf, fake: FakeProvider
) -> None:
    fake.models = ["m"]
    fake.script("hi")
    own = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": fake.base_url + url}
    found = await shelf(own=own).resolve("openai/m")
    assert [event async for event in found.stream(ModelRequest("m", [user_input("hi")]))]
    assert fake.requests[0].path == path


@pytest.mark.parametrize("form", ["127.0.0.1:{port}", "http://127.0.0.1:{port}/", "0.0.0.0:{port}", ":{port}"])
async def test_ollama_host_is_read_as_ollama_reads_it(form: str, shelf: Shelf, fake: FakeProvider) -> None:
    own = {"OLLAMA_HOST": form.format(port=fake.port)}
    catalog = shelf("[providers.ollama]\nmax_retries = 1", own=own)
    assert (await catalog.resolve("ollama/qwen3:8b")).label == "ollama/qwen3:8b"


# -- the list --------------------------------------------------------------------------------------------------------


async def test_the_list_says_why_the_rest_is_not_reachable(shelf: Shelf, fake: FakeProvider) -> None:
    catalog = shelf(
        ollama=fake.base_url,
        vllm=f"http://127.0.0.1:{free_port()}",
        own={"GEMINI_API_KEY": KEY},
        embedded=Embedded(False),
    )
    lines = {line.id: line for line in await catalog.list()}
    assert lines["openai"].detail == "no OPENAI_API_KEY in the environment or config"
    assert not lines["openai"].available
    assert "nothing answers on 127.0.0.1" in lines["vllm"].detail
    assert lines["ollama/qwen3:8b"].available
    assert lines["ollama/qwen3:8b"].local
    gemini = lines[f"gemini/{known.DEFAULTS['gemini']}"]
    assert gemini.default
    assert "GEMINI_API_KEY" in gemini.detail
    assert gemini.context_window == 1_000_000
    assert not lines["embedded/tiny"].default
    assert sum(line.default for line in lines.values()) == 1
    assert KEY not in str(lines)


async def test_the_default_of_the_list_is_what_auto_picks(shelf: Shelf, fake: FakeProvider) -> None:
    embedded = shelf(embedded=Embedded(True))
    assert [line.id for line in await embedded.list() if line.default] == ["embedded/tiny"]
    local = shelf(embedded=Embedded(True), ollama=fake.base_url)
    assert [line.id for line in await local.list() if line.default] == ["ollama/qwen3:8b"]


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses", "anthropic", "gemini"])
async def test_a_provider_with_a_key_is_asked_only_on_refresh(kind: str, shelf: Shelf, fake: FakeProvider) -> None:
    text = f'[providers.gw]\nkind = "{kind}"\nbase_url = "{far(fake)}"\napi_key_env = "OPENAI_API_KEY"\n'
    text += "allow_http = true\n"
    catalog = shelf(text + "[providers.openai]\nenabled = false", own={"OPENAI_API_KEY": KEY})
    assert [line.id for line in await catalog.list() if line.available] == ["gw/NAME"]
    assert not fake.gets
    listed = [line.id for line in await catalog.list(refresh=True) if line.available]
    assert listed == ["gw/qwen3:8b", "gw/llama3.3:latest", "gw/nomic-embed-text:latest"]
    assert KEY in str(fake.gets[0].headers)


async def test_a_refused_refresh_is_a_line_without_the_key(shelf: Shelf, fake: FakeProvider) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    fake.routes["/v1/models"] = Raw(json.dumps(body), status=401, content_type="application/json")
    text = f'[providers.gw]\nkind = "openai-chat"\nbase_url = "{far(fake)}"\napi_key_env = "OPENAI_API_KEY"\n'
    catalog = shelf(text + "allow_http = true\n", own={"OPENAI_API_KEY": KEY})
    line = next(line for line in await catalog.list(refresh=True) if line.provider == "gw")
    assert not line.available
    assert "key" in line.detail
    assert KEY not in line.detail


async def test_close_closes_the_embedded_model_and_running_probes(shelf: Shelf, fake: FakeProvider) -> None:
    fake.routes["/v1/models"] = Raw([asyncio.Event()])
    embedded = Embedded(True)
    catalog = shelf(vllm=fake.base_url, embedded=embedded)
    waiting = asyncio.create_task(catalog.resolve("vllm/m"))
    await fake.asked(1)
    await catalog.aclose()
    with pytest.raises((asyncio.CancelledError, InteractdError)):
        await waiting
    assert embedded.closed


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("gpt-5.5-2026-04-23", 872_000),
        ("gpt-4", 8_192),
        ("gpt-4.1-mini", 1_000_000),
        ("anthropic/claude-sonnet-4-5-20250929", 200_000),
        ("claude-opus-5-5", 1_000_000),
        ("gemini-3-pro-preview", 1_000_000),
        ("unheard-of", None),
    ],
)
def test_windows_of_hosted_models_are_known_by_family(name: str, window: int | None) -> None:
    assert known.window(name) == window


async def test_nothing_about_a_model_shows_its_key(shelf: Shelf) -> None:
    found = await shelf(own={"OPENAI_API_KEY": KEY}).resolve("openai/gpt-5.5")
    assert isinstance(found, HttpModel)
    assert KEY not in repr(found) + repr(vars(found))
