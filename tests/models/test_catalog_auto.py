"""What `auto` means and why, and what is probed for it."""

from __future__ import annotations

import asyncio

import pytest

from interactd.errors import (
    NotSetUp,
    ProviderUnavailable,
)
from interactd.models import known, local
from interactd.models.keys import KeyRing
from models.catalog_kit import KEY, Embedded, Shelf, error_of, fake, free_port, shelf
from support.provider import FakeProvider, Raw

__all__ = ["fake", "shelf"]

pytestmark = pytest.mark.anyio


# -- auto ------------------------------------------------------------------------------------------------------------


async def test_auto_is_the_configured_model_first(shelf: Shelf, fake: FakeProvider) -> None:
    catalog = shelf('[defaults]\nmodel = "ollama/llama3.3"', own={"OPENAI_API_KEY": KEY}, ollama=fake.base_url)
    assert (await catalog.resolve("auto")).label == "ollama/llama3.3:latest"
    assert await catalog.explain_auto() == (
        "auto is ollama/llama3.3, because [defaults] model names it in the configuration."
    )


async def test_auto_is_a_key_before_a_server_and_nobody_is_probed(shelf: Shelf, fake: FakeProvider) -> None:
    catalog = shelf(own={"ANTHROPIC_API_KEY": KEY}, ollama=fake.base_url, embedded=Embedded(True))
    assert (await catalog.resolve("AUTO")).label == f"anthropic/{known.DEFAULTS['anthropic']}"
    assert "because ANTHROPIC_API_KEY is set" in await catalog.explain_auto()
    assert fake.connections == 0


async def test_auto_is_a_server_before_the_embedded_model(shelf: Shelf, fake: FakeProvider) -> None:
    catalog = shelf(ollama=fake.base_url, embedded=Embedded(True))
    assert (await catalog.resolve("auto")).label == "ollama/qwen3:8b"
    assert f"ollama answers on 127.0.0.1:{fake.port}" in await catalog.explain_auto()


async def test_auto_prefers_the_model_that_a_server_has_loaded(shelf: Shelf, fake: FakeProvider) -> None:
    fake.routes["/api/ps"] = {"models": [{"name": "llama3.3:latest", "context_length": 8192}]}
    found = await shelf(ollama=fake.base_url).resolve("auto")
    assert (found.label, found.context_window) == ("ollama/llama3.3:latest", 8192)


async def test_auto_is_the_embedded_model_last(shelf: Shelf) -> None:
    catalog = shelf(embedded=Embedded(True), ollama=f"http://127.0.0.1:{free_port()}")
    assert (await error_of(catalog, "auto")).message == "embedded asked for auto"
    assert "embedded model is set up" in await catalog.explain_auto()


async def test_auto_with_nothing_usable_says_what_was_looked_at_and_names_setup(shelf: Shelf) -> None:
    catalog = shelf(embedded=Embedded(False), ollama=f"http://127.0.0.1:{free_port()}")
    error = await error_of(catalog, "auto")
    assert isinstance(error, NotSetUp)
    assert "no OPENAI_API_KEY" in error.message
    assert "no GEMINI_API_KEY or GOOGLE_API_KEY" in error.message
    assert "(ollama)" in error.message
    assert "`interactd setup`" in (error.repair or "")
    assert (await catalog.explain_auto()).startswith("auto: no model is usable")


async def test_auto_takes_the_callers_key_into_account(shelf: Shelf) -> None:
    ring = KeyRing(own={})
    ring.attach("con_a", {"GEMINI_API_KEY": KEY})
    catalog = shelf(ring=ring, embedded=Embedded(True))
    assert (await catalog.resolve("auto", connection="con_a")).provider == "gemini"
    assert "embedded" in (await error_of(catalog, "auto", "con_other")).message


@pytest.mark.parametrize("table", ["[defaults]\nmodel = 'openai/other'", "[providers.openai]\ndefault_model = 'other'"])
async def test_the_default_model_can_be_chosen(table: str, shelf: Shelf) -> None:
    assert (await shelf(table, own={"OPENAI_API_KEY": KEY}).resolve("auto")).label == "openai/other"


# -- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Raw("<html>hello</html>", content_type="text/html"),
        Raw('{"hello": 1}', content_type="application/json"),
        Raw("[1, 2]", content_type="application/json"),
        Raw('{"data": [1, null, {"id": 5}, {"id": "a\\u0000b"}]}', content_type="application/json"),
        Raw("null", content_type="application/json"),
        Raw("[" * 100_000, content_type="application/json"),
        Raw(b"\xff\xfe", content_type="application/json"),
        Raw('{"data": [{"id": "x"}]}', content_type="application/json", headers={"x-interactd": "1"}),
        Raw("moved", status=302, headers={"location": "/login"}),
        Raw("no", status=500),
        Raw([], abort=True),
    ],
)
async def test_whatever_else_listens_there_is_not_taken_for_a_model_server(
    answer: Raw, shelf: Shelf, fake: FakeProvider
) -> None:
    fake.routes["/v1/models"] = answer
    catalog = shelf(vllm=fake.base_url, embedded=Embedded(True))
    assert (await error_of(catalog, "auto")).message == "embedded asked for auto"
    assert not [line for line in await catalog.list() if line.provider == "vllm" and line.available]


async def test_a_server_that_accepts_and_says_nothing_costs_200_ms(shelf: Shelf, fake: FakeProvider) -> None:
    fake.routes["/v1/models"] = Raw([asyncio.Event()])
    catalog = shelf(vllm=fake.base_url, llamacpp=fake.base_url, embedded=Embedded(True))
    start = asyncio.get_running_loop().time()
    await error_of(catalog, "auto")
    assert asyncio.get_running_loop().time() - start < 1.0
    line = next(line for line in await catalog.list() if line.provider == "vllm")
    assert "within 200 ms" in line.detail


async def test_many_callers_share_one_probe_and_it_is_remembered(shelf: Shelf, fake: FakeProvider) -> None:
    catalog = shelf(vllm=fake.base_url)
    await asyncio.gather(*(catalog.resolve("auto") for _ in range(50)))
    await catalog.explain_auto()
    assert len(fake.gets) == 1
    await catalog.list(refresh=True)
    assert len(fake.gets) == 2


async def test_a_server_that_was_there_is_believed_once_when_it_is_slow(
    shelf: Shelf, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "REMEMBER_S", 0)
    catalog = shelf(vllm=fake.base_url, embedded=Embedded(True))
    assert (await catalog.explain_auto()).startswith("auto is vllm/")
    fake.routes["/v1/models"] = Raw([asyncio.Event()])
    assert (await catalog.explain_auto()).startswith("auto is vllm/")
    assert (await catalog.explain_auto()).startswith("auto is embedded/")


async def test_a_caller_that_gives_up_leaves_the_probe_to_the_others(shelf: Shelf, fake: FakeProvider) -> None:
    gate = asyncio.Event()
    fake.routes["/v1/models"] = Raw([gate, '{"data": [{"id": "m"}]}'], content_type="application/json")
    catalog = shelf(vllm=fake.base_url)
    first, second = (asyncio.create_task(catalog.resolve("vllm/m")) for _ in range(2))
    await fake.asked(1)
    first.cancel()
    gate.set()
    assert (await second).label == "vllm/m"
    assert len(fake.gets) == 1


async def test_a_named_server_that_was_down_is_asked_again_at_once(shelf: Shelf) -> None:
    port = free_port()
    catalog = shelf(ollama=f"http://127.0.0.1:{port}")
    error = await error_of(catalog, "ollama/qwen3:8b")
    assert isinstance(error, ProviderUnavailable)
    assert f"nothing answers on 127.0.0.1:{port}" in error.message
    assert "ollama serve" in (error.repair or "")
    started = FakeProvider(models=["qwen3:8b"])
    await started.start(port)
    try:
        assert (await catalog.resolve("ollama/qwen3:8b")).label == "ollama/qwen3:8b"
    finally:
        await started.aclose()


async def test_windows_come_from_the_server_where_it_tells(shelf: Shelf, fake: FakeProvider) -> None:
    fake.routes["/v1/models"] = {"data": [{"id": "m", "max_model_len": 12345}]}
    assert (await shelf(vllm=fake.base_url).resolve("vllm/m")).context_window == 12345
    fake.routes["/props"] = {"default_generation_settings": {"n_ctx": 2048}}
    assert (await shelf(llamacpp=fake.base_url).resolve("llamacpp/m")).context_window == 2048
    text = f"[providers.vllm]\nbase_url = '{fake.base_url}'\ncontext_window = 999"
    assert (await shelf(text).resolve("vllm/m")).context_window == 999


async def test_a_configured_server_without_a_model_list_may_be_named(shelf: Shelf, fake: FakeProvider) -> None:
    fake.routes["/v1/models"] = Raw("no", status=404)
    text = f'[providers.mine]\nkind = "openai-chat"\nbase_url = "{fake.base_url}"\n'
    assert (await shelf(text).resolve("mine/whatever")).label == "mine/whatever"


@pytest.mark.parametrize("listing", [True, False])
async def test_a_gateway_on_this_machine_is_asked_with_its_key(listing: bool, shelf: Shelf, fake: FakeProvider) -> None:
    fake.models = ["served-here"]
    if not listing:
        fake.routes["/v1/models"] = Raw("no", status=404)
    catalog = shelf(own={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": fake.base_url}, embedded=Embedded(True))
    expected = "served-here" if listing else known.DEFAULTS["openai"]
    assert (await catalog.resolve("auto")).label == f"openai/{expected}"
    assert fake.gets[0].headers["authorization"] == f"Bearer {KEY}"
    assert [line.id for line in await catalog.list() if line.default] == [f"openai/{expected}"]
