"""Every provider's way of saying no, and a proxy's."""

from __future__ import annotations

import json
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from interactd.errors import (
    ConfigError,
    ContentBlocked,
    ContextOverflow,
    InteractdError,
    KeyRefused,
    ProviderRejected,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    UnknownModel,
)
from interactd.models.codecs import KINDS, codec


def error(kind: str, status: int, body: Any, headers: dict[str, str] | None = None) -> InteractdError:
    text = body if isinstance(body, str) else json.dumps(body)
    return codec(kind, "acme").error(status, headers or {}, text)


def openai(message: str, code: Any = None, type: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


def claude(message: str, type: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


def google(message: str, code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}
PER_MINUTE = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}],
}
QUOTA_WORDS = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("kind", "status", "body", "expected"),
    [
        ("openai-chat", 401, openai("Incorrect API key provided: sk-ab***yz.", "invalid_api_key"), KeyRefused),
        ("openai-chat", 403, openai("Project does not have access to model", "unsupported"), KeyRefused),
        ("openai-chat", 404, openai("The model `gpt-9` does not exist", "model_not_found"), UnknownModel),
        ("openai-chat", 400, openai("The model `gpt-9` does not exist", "model_not_found"), UnknownModel),
        ("openai-chat", 400, openai("acme/zz is not a valid model ID", 400), UnknownModel),
        ("openai-chat", 404, {"error": 'model "zz" not found, try pulling it first'}, UnknownModel),
        ("openai-chat", 404, {"error": {"code": "DeploymentNotFound", "message": "No such deployment."}}, UnknownModel),
        ("openai-chat", 429, openai("Rate limit reached", "rate_limit_exceeded", "requests"), RateLimited),
        ("openai-chat", 429, openai(QUOTA_WORDS, "insufficient_quota", "insufficient_quota"), QuotaExceeded),
        ("openai-chat", 402, {"error": {"message": "Insufficient credits", "code": 402}}, QuotaExceeded),
        (
            "openai-chat",
            400,
            openai("This model's maximum context length is 8192 tokens.", "context_length_exceeded"),
            ContextOverflow,
        ),
        (
            "openai-chat",
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                }
            },
            ContextOverflow,
        ),
        (
            "openai-chat",
            413,
            openai("Request too large for model `x` on tokens per minute", "rate_limit_exceeded", "tokens"),
            ContextOverflow,
        ),
        (
            "openai-chat",
            400,
            {
                "error": {
                    "code": "content_filter",
                    "message": "filtered",
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
            ContentBlocked,
        ),
        ("openai-chat", 400, openai("Unsupported value: 'messages[0].role'", "unsupported_value"), ProviderRejected),
        ("openai-chat", 422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}, ProviderRejected),
        ("openai-chat", 500, openai("The server had an error", None, "server_error"), ProviderUnavailable),
        (
            "openai-responses",
            400,
            openai("Your input exceeds the context window of this model.", "context_length_exceeded"),
            ContextOverflow,
        ),
        (
            "openai-responses",
            400,
            openai("Invalid prompt: flagged for violating our usage policy.", "invalid_prompt"),
            ContentBlocked,
        ),
        ("anthropic", 401, claude("invalid x-api-key", "authentication_error"), KeyRefused),
        ("anthropic", 403, claude("no permission", "permission_error"), KeyRefused),
        ("anthropic", 404, claude("model: claude-zz", "not_found_error"), UnknownModel),
        ("anthropic", 429, claude("too fast", "rate_limit_error"), RateLimited),
        (
            "anthropic",
            400,
            claude("Your credit balance is too low to access the Anthropic API.", "invalid_request_error"),
            QuotaExceeded,
        ),
        (
            "anthropic",
            400,
            claude("prompt is too long: 250000 tokens > 200000 maximum", "invalid_request_error"),
            ContextOverflow,
        ),
        (
            "anthropic",
            400,
            claude("input length and `max_tokens` exceed context limit: 1 + 2 > 3", "invalid_request_error"),
            ContextOverflow,
        ),
        ("anthropic", 413, claude("Request exceeds the maximum size", "request_too_large"), ContextOverflow),
        ("anthropic", 529, claude("Overloaded", "overloaded_error"), ProviderUnavailable),
        ("anthropic", 500, claude("Internal", "api_error"), ProviderUnavailable),
        ("anthropic", 400, claude("max_tokens: Field required", "invalid_request_error"), ProviderRejected),
        ("gemini", 400, google("API key not valid.", 400, "INVALID_ARGUMENT", BAD_KEY), KeyRefused),
        ("gemini", 403, google("denied", 403, "PERMISSION_DENIED"), KeyRefused),
        ("gemini", 404, google("models/zz is not found for API version v1beta", 404, "NOT_FOUND"), UnknownModel),
        ("gemini", 429, google(QUOTA_WORDS, 429, "RESOURCE_EXHAUSTED", PER_MINUTE, RETRY), RateLimited),
        ("gemini", 429, google(QUOTA_WORDS, 429, "RESOURCE_EXHAUSTED", PER_DAY, RETRY), QuotaExceeded),
        (
            "gemini",
            400,
            google(
                "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                400,
                "INVALID_ARGUMENT",
            ),
            ContextOverflow,
        ),
        ("gemini", 400, google("Invalid value at 'contents'", 400, "INVALID_ARGUMENT"), ProviderRejected),
        ("gemini", 503, google("The model is overloaded.", 503, "UNAVAILABLE"), ProviderUnavailable),
        ("gemini", 400, [google("Invalid value", 400, "INVALID_ARGUMENT")], ProviderRejected),
        (
            "openai-chat",
            502,
            "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
            ProviderUnavailable,
        ),
        ("anthropic", 404, "<!DOCTYPE html><html><title>Not here</title></html>", UnknownModel),
        ("gemini", 418, "", ProviderRejected),
        ("openai-chat", 400, "null", ProviderRejected),
        ("openai-chat", 400, '"just a sentence"', ProviderRejected),
        ("openai-chat", 503, "upstream connect error", ProviderUnavailable),
        ("openai-chat", 301, "Moved", ProviderRejected),
    ],
)
def test_a_refusal_is_the_error_it_means(kind: str, status: int, body: Any, expected: type[InteractdError]) -> None:
    made = error(kind, status, body)
    assert type(made) is expected
    assert made.repair
    assert made.fields["status"] == status
    assert str(made).startswith("acme: ")
    json.dumps(made.as_dict())


def test_the_providers_own_sentence_is_kept() -> None:
    assert "'messages[0].role'" in str(error("openai-chat", 400, openai("Unsupported value: 'messages[0].role'")))
    assert "502 Bad Gateway" in str(error("gemini", 502, "<html><title>502 Bad Gateway</title></html>"))
    routed = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"detail":"too odd"}'}}}
    assert "too odd" in str(error("openai-chat", 400, routed))


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, {}, 7),
        ({"retry-after-ms": "1500"}, {}, 1.5),
        ({"retry-after": "in half a minute, as a date"}, {}, 30),
        ({"retry-after": "soon"}, {}, None),
        ({"x-ratelimit-reset-requests": "6m0s"}, {}, 360),
        ({}, google("m", 429, "RESOURCE_EXHAUSTED", RETRY), 34.07),
        ({}, openai("Rate limit reached. Please try again in 1.2s."), 1.2),
        ({}, openai("Please try again in 20ms."), 0.02),
        ({}, openai("no idea"), None),
    ],
)
def test_how_long_to_wait_is_read_wherever_it_is_said(
    headers: dict[str, str], body: dict[str, Any], seconds: float | None
) -> None:
    if "date" in headers.get("retry-after", ""):
        headers = {"retry-after": formatdate(time() + 30, usegmt=True)}
    made = error("openai-chat", 429, body, headers)
    assert made.fields.get("retry_after_s") == (None if seconds is None else pytest.approx(seconds, abs=1.5))


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-Ab12Cd34Ef56Gh78",
        "sk-ant-api03-AAAA_BBBB-CCCC",
        "AIzaSyA1234567890abcdefgh",
        "gsk_abcdefgh12345678",
        "sk-12345*****6789",
        "xai-0123456789abcdef",
    ],
)
@pytest.mark.parametrize(
    "sentence",
    ["Incorrect API key provided: {}. You can find", "bad header 'authorization: Bearer {}'", '{{"x-api-key": "{}"}}'],
)
def test_a_key_that_a_provider_repeats_is_not_repeated_by_us(key: str, sentence: str) -> None:
    made = error("openai-chat", 401, openai(sentence.format(key)))
    assert key not in json.dumps(made.as_dict())
    named = error("openai-chat", 401, openai("API key: plain-local-secret is wrong"))
    assert "plain-local-secret" not in str(named)


def test_a_kind_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        codec("telegraph", "x")
    assert all(kind in (caught.value.repair or "") for kind in KINDS)
