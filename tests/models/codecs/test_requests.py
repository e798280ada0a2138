"""Histories as each wire wants them: turns that alternate, calls with their results, other providers' steps as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from interactd.models.codecs import KINDS, codec
from interactd.models.port import ModelRequest, StepFinished
from interactd.nouns import Step, text_content, user_input
from models.codecs.kit import KIND, Json, body, call, play, result, said

PROVIDER = {"openai-chat": "openai", "openai-responses": "openai", "anthropic": "anthropic", "gemini": "gemini"}
MODEL = {
    "openai-chat": "gpt-4o",
    "openai-responses": "gpt-5",
    "anthropic": "claude-opus-4-6",
    "gemini": "gemini-2.5-pro",
}
ADD: Json = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
NOW: Json = {"type": "function", "name": "now"}
IMAGE: Json = {"type": "image", "data": "iVBORw0KGgo=", "mime_type": "image/png"}
URL: Json = {"type": "image", "uri": "https://example.org/cat.webp"}


def messages(
    kind: str, steps: list[Step], *, provider: str | None = None, model: str | None = None, **more: Any
) -> Any:
    made = body(kind, provider or PROVIDER[kind], model or MODEL[kind], steps, **more)
    return made.get("messages") or made.get("input") or made["contents"]


CONVERSATION = [
    user_input("Add 1, and what time is it?"),
    call("c1", "add", {"a": 1}),
    call("c2", "now"),
    result("c2", "noon"),
    result("c1", {"sum": 1}, is_error=False),
    said("One, at noon."),
    user_input("Thanks."),
]


def test_chat_completions_pairs_calls_with_tool_messages() -> None:
    made = body("openai-chat", "openai", "gpt-4o", CONVERSATION, system_instruction="Be brief.", tools=[ADD, NOW])
    assert made["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add 1, and what time is it?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"sum": 1}'},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "assistant", "content": "One, at noon."},
        {"role": "user", "content": "Thanks."},
    ]
    assert made["tools"][1] == {
        "type": "function",
        "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
    }
    assert made["stream_options"] == {"include_usage": True}


def test_responses_sends_everything_and_stores_nothing() -> None:
    made = body("openai-responses", "openai", "gpt-5", CONVERSATION, system_instruction="Be brief.", tools=[ADD])
    assert made["store"] is False
    assert made["include"] == ["reasoning.encrypted_content"]
    assert made["instructions"] == "Be brief."
    assert made["tools"][0]["strict"] is False
    assert [item.get("type", item.get("role")) for item in made["input"]] == [
        "user",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "assistant",
        "user",
    ]
    assert made["input"][3] == {"type": "function_call_output", "call_id": "c1", "output": '{"sum": 1}'}
    assert made["input"][5] == {"role": "assistant", "content": "One, at noon."}


def test_messages_puts_the_results_first_in_the_users_turn() -> None:
    made = body("anthropic", "anthropic", "claude-opus-4-6", CONVERSATION, system_instruction="Be brief.", tools=[ADD])
    assert made["system"] == [{"type": "text", "text": "Be brief."}]
    assert made["max_tokens"] == 32000
    assert [message["role"] for message in made["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert made["messages"][1]["content"][0] == {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}
    assert made["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": '{"sum": 1}'},
        {"type": "tool_result", "tool_use_id": "c2", "content": "noon"},
    ]


def test_gemini_answers_calls_by_name_in_the_users_turn() -> None:
    made = body("gemini", "gemini", "gemini-2.5-pro", CONVERSATION, system_instruction="Be brief.", tools=[ADD, NOW])
    assert made["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [content["role"] for content in made["contents"]] == ["user", "model", "user", "model", "user"]
    assert made["contents"][2]["parts"] == [
        {"functionResponse": {"name": "add", "response": {"sum": 1}, "id": "c1"}},
        {"functionResponse": {"name": "now", "response": {"output": "noon"}, "id": "c2"}},
    ]
    first, second = made["tools"][0]["functionDeclarations"]
    assert first["parametersJsonSchema"] == ADD["parameters"]
    assert "parametersJsonSchema" not in second


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_nobody_answered_is_answered_with_an_error(kind: str) -> None:
    text = json.dumps(messages(kind, [user_input("x"), call("c1", "add"), user_input("never mind")]))
    assert text.count("This call was not answered.") == 1
    assert text.index("not answered") < text.index("never mind")


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_without_its_call_is_told_as_text(kind: str) -> None:
    text = json.dumps(messages(kind, [result("gone", "42"), user_input("so?")]))
    assert "Result of an earlier call of a function" in text
    assert "tool_call_id" not in text
    assert "tool_use_id" not in text
    assert "functionResponse" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_failed_results_are_marked_as_such(kind: str) -> None:
    text = json.dumps(messages(kind, [user_input("x"), call("c1", "add"), result("c1", "no disk", is_error=True)]))
    marks = {"anthropic": '"is_error": true', "gemini": '{"error": "no disk"}'}
    assert marks.get(kind, "Error: no disk") in text


def test_ids_that_a_wire_refuses_are_replaced_the_same_way_on_both_sides() -> None:
    odd = "functions.get:0|" + "x" * 80
    steps = [user_input("x"), call(odd, "get"), result(odd, "1"), user_input("y"), call(odd, "get"), result(odd, "2")]
    claude = messages("anthropic", steps)
    uses = [block["id"] for message in claude for block in message["content"] if block["type"] == "tool_use"]
    answers = [
        block["tool_use_id"] for message in claude for block in message["content"] if block["type"] == "tool_result"
    ]
    assert uses == answers
    assert len(set(uses)) == 2, "Anthropic wants ids that are unique in the conversation"
    chat = messages("openai-chat", steps, provider="mistral", model="mistral-large")
    ids = [made["id"] for message in chat for made in message.get("tool_calls", [])]
    assert all(len(id) == 9 and id.isalnum() for id in ids)
    assert ids == [message["tool_call_id"] for message in chat if message["role"] == "tool"]


@pytest.mark.parametrize("kind", KINDS)
def test_neighbouring_inputs_are_one_turn(kind: str) -> None:
    made = messages(kind, [user_input("one"), user_input("two"), said("three"), said("four"), user_input("five")])
    assert len(made) == 3 if kind != "openai-responses" else 4
    assert "one" in json.dumps(made[0])
    assert "two" in json.dumps(made[0])


@pytest.mark.parametrize(("kind", "first"), [("anthropic", "user"), ("gemini", "user"), ("openai-chat", "assistant")])
def test_a_history_that_begins_with_the_model_is_sent_as_the_wire_takes_it(kind: str, first: str) -> None:
    made = messages(kind, [said("Hello."), user_input("Hi.")])
    assert made[0]["role"] == first
    local = messages("openai-chat", [said("Hello."), user_input("Hi.")], provider="ollama", model="gemma3")
    assert [message["role"] for message in local] == ["user", "assistant", "user"]


def test_images_go_in_each_wires_own_shape() -> None:
    steps = [user_input([text_content("see"), IMAGE, URL])]
    chat = messages("openai-chat", steps)[0]["content"]
    assert chat[1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert chat[2]["image_url"]["url"] == "https://example.org/cat.webp"
    items = messages("openai-responses", steps)[0]["content"]
    assert items[1] == {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
    blocks = messages("anthropic", steps)[0]["content"]
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert blocks[1] == {"type": "image", "source": source}
    assert blocks[2] == {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.webp"}}
    parts = messages("gemini", steps)[0]["parts"]
    assert parts[1] == {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    assert parts[2] == {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.org/cat.webp"}}


def test_a_data_uri_and_an_image_without_a_type_are_understood() -> None:
    given = [{"type": "image", "uri": "data:image/gif;base64,R0lGODlh"}, {"type": "image", "data": "/9j/4AAQ"}]
    blocks = messages("anthropic", [user_input(given)])[0]["content"]
    assert blocks[0]["source"] == {"type": "base64", "media_type": "image/gif", "data": "R0lGODlh"}
    assert blocks[1]["source"]["media_type"] == "image/jpeg"


def test_an_image_in_a_result_reaches_the_model_on_every_wire() -> None:
    steps = [user_input("x"), call("c1", "shot"), result("c1", [text_content("done"), IMAGE])]
    assert messages("anthropic", steps)[2]["content"][0]["content"][1]["type"] == "image"
    assert messages("openai-responses", steps)[2]["output"][1]["type"] == "input_image"
    chat = messages("openai-chat", steps)
    assert chat[-1]["role"] == "user"
    assert chat[-1]["content"][1]["type"] == "image_url"
    old = messages("gemini", steps)[2]["parts"]
    assert old[1]["inlineData"]["mimeType"] == "image/png"
    new = messages("gemini", steps, model="gemini-3-flash-preview")[2]["parts"]
    assert new[0]["functionResponse"]["parts"][0]["inlineData"]["mimeType"] == "image/png"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["messages-redacted", "responses-items", "generate-signed", "chat-think-tags"])
def test_another_providers_thoughts_and_blocks_are_left_out_and_its_words_and_calls_kept(kind: str, name: str) -> None:
    made, _ = play(name, provider="somebody-else")
    text = json.dumps(messages(kind, [user_input("x"), *made, user_input("y")]), ensure_ascii=False)
    for secret in ("c2lnbmF0dXJl", "cmVkYWN0ZWQ=", "ZW5j", "dGV4dA==", "Zmlyc3Q=", "teleport_call", "quantumFoam"):
        assert secret not in text
    for thought in ("Weighing it.", "Second.", "Let me think.", "Two and two."):
        assert thought not in text
    for step in made:
        if step.type == "function_call":
            assert step.body["name"] in text
        if step.type == "model_output" and step.text:
            assert step.text in text
        if step.type == "google_search_call":
            assert "google_search_call" in text


def test_an_own_turn_goes_back_to_anthropic_as_it_came() -> None:
    steps, _ = play("messages-redacted", provider="anthropic", model="claude-sonnet-4-5")
    made = messages("anthropic", [user_input("x"), *steps], model="claude-sonnet-4-5")
    assert made[1]["content"] == [
        {"type": "thinking", "thinking": "Weighing it.", "signature": "c2lnbmF0dXJl"},
        {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
        {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {"at": "thé"}},
    ]
    cited, _ = play("messages-from-the-future", provider="anthropic")
    blocks = messages("anthropic", [user_input("x"), *cited])[1]["content"]
    assert blocks[0]["type"] == "hologram"
    assert blocks[2]["citations"][0]["encrypted_index"] == "abc"


def test_an_own_turn_goes_back_to_gemini_part_by_part() -> None:
    steps, _ = play("generate-signed", provider="gemini", model="gemini-3-x")
    made = messages("gemini", [user_input("x"), *steps], model="gemini-3-x")
    assert made[1]["parts"] == [
        {"text": "Let me think.", "thought": True},
        {"text": "I will look."},
        {"text": "", "thoughtSignature": "dGV4dA=="},
        {"functionCall": {"name": "look", "args": {"at": "x"}}, "thoughtSignature": "Zmlyc3Q="},
        {"functionCall": {"name": "look", "args": {}}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}, "thoughtSignature": "aW1n"},
        {"quantumFoam": {"q": 1}},
    ]
    assert [set(part["functionResponse"]) for part in made[2]["parts"]] == [{"name", "response"}] * 2


def test_gemini_3_gets_the_documented_stand_in_for_a_signature_that_another_model_cannot_give() -> None:
    made = messages("gemini", [user_input("x"), call("a", "f"), call("b", "f")], model="gemini-3-pro-preview")
    assert [part.get("thoughtSignature") for part in made[1]["parts"]] == ["skip_thought_signature_validator", None]
    older = messages("gemini", [user_input("x"), call("a", "f")], model="gemini-2.5-flash")
    assert "thoughtSignature" not in older[1]["parts"][0]


def test_an_own_turn_goes_back_to_responses_with_its_encrypted_reasoning() -> None:
    steps, _ = play("responses-items", provider="openai", model="gpt-5-x")
    made = messages("openai-responses", [user_input("x"), *steps], model="gpt-5-x")
    assert made[1]["encrypted_content"] == "ZW5j"
    assert made[1]["id"] == "rs_1"
    assert made[2]["type"] == "web_search_call"
    assert made[3] == {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "add",
        "arguments": '{"a":1}',
        "status": "completed",
    }
    assert [item["type"] for item in made[5:]] == ["teleport_call", "function_call_output", "function_call_output"]
    plain = messages("openai-responses", [user_input("x"), *steps], model="gpt-4o")
    assert "ZW5j" not in json.dumps(plain), "a model that does not reason refuses reasoning items"
    assert "fc_1" not in json.dumps(plain)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_chat_servers_reasoning_goes_back_in_the_field_it_came_in(field: str) -> None:
    message: Json = {"role": "assistant", "content": None, field: "Hm."}
    message["tool_calls"] = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message["reasoning_details"] = [{"type": "reasoning.encrypted", "data": "b3BhcXVl", "index": 0}]
    parser = codec("openai-chat", "deepseek").parser(ModelRequest(model="m", steps=[]))
    events = parser.feed_body({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    steps = [event.step for event in events if isinstance(event, StepFinished)]
    assert [step.type for step in steps] == ["thought", "function_call"]
    again = messages("openai-chat", [user_input("x"), *steps], provider="deepseek", model="deepseek-chat")[1]
    assert again == message
    other = messages("openai-chat", [user_input("x"), *steps], provider="groq", model="m")[1]
    assert set(other) == {"role", "content", "tool_calls"}


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_that_were_no_json_go_back_as_something_that_is(kind: str) -> None:
    broken = Step("function_call", {"id": "c1", "name": "f", "arguments": {}, "raw_arguments": '{"a": "un'})
    text = json.dumps(messages(kind, [user_input("x"), broken, result("c1", "bad arguments", is_error=True)]))
    assert "raw_arguments" in text


@pytest.mark.parametrize(
    ("kind", "auto", "any_", "none"),
    [
        ("openai-chat", "auto", "required", "none"),
        ("openai-responses", "auto", "required", "none"),
        ("anthropic", {"type": "auto"}, {"type": "any"}, {"type": "none"}),
        ("gemini", "AUTO", "ANY", "NONE"),
    ],
)
def test_tool_choice_is_said_in_each_wires_words(kind: str, auto: Any, any_: Any, none: Any) -> None:
    for choice, wanted in (("auto", auto), ("any", any_), ("none", none)):
        made = body(kind, PROVIDER[kind], MODEL[kind], [user_input("x")], tools=[ADD], config={"tool_choice": choice})
        got = made["toolConfig"]["functionCallingConfig"]["mode"] if kind == "gemini" else made["tool_choice"]
        assert got == wanted
        bare = body(kind, PROVIDER[kind], MODEL[kind], [user_input("x")], config={"tool_choice": choice})
        assert "tool_choice" not in bare
        assert "toolConfig" not in bare


def test_paths_and_keys_go_where_each_provider_looks_for_them() -> None:
    request = ModelRequest(model="claude-opus-5-5", steps=[])
    assert codec("openai-chat", "openai").headers("k") == {"authorization": "Bearer k"}
    assert codec("openai-responses", "azure").headers("k") == {"api-key": "k"}
    assert codec("anthropic", "anthropic").headers("k", request)["x-api-key"] == "k"
    assert "anthropic-beta" in codec("anthropic", "anthropic").headers("k", request)
    assert codec("gemini", "gemini").headers("k") == {"x-goog-api-key": "k"}
    assert all("k" not in codec(kind, "p").headers(None).values() for kind in KINDS)
    path = codec("gemini", "gemini").path(ModelRequest(model="gemini-2.5-pro", steps=[]), stream=True)
    assert path == "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"


def test_a_session_marks_its_prompt_for_the_cache() -> None:
    steps = [user_input("x"), said("y"), user_input("z")]
    claude = body("anthropic", "anthropic", "claude-opus-5", steps, system_instruction="s", cache_key="ses_1")
    assert claude["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert claude["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in json.dumps(claude["messages"][:-1])
    assert body("openai-responses", "openai", "gpt-5", steps, cache_key="ses_1")["prompt_cache_key"] == "ses_1"
    assert "prompt_cache_key" not in body("openai-chat", "ollama", "llama3", steps, cache_key="ses_1")


@pytest.mark.parametrize("kind", KIND.values())
def test_the_same_conversation_makes_the_same_bytes(kind: str) -> None:
    first = json.dumps(body(kind, PROVIDER[kind], MODEL[kind], CONVERSATION, tools=[ADD, NOW]))
    assert first == json.dumps(body(kind, PROVIDER[kind], MODEL[kind], CONVERSATION, tools=[ADD, NOW]))
    longer = body(kind, PROVIDER[kind], MODEL[kind], [*CONVERSATION, said("ok"), user_input("more")], tools=[ADD, NOW])
    start = json.dumps(messages(kind, CONVERSATION))[:-2]
    again = longer.get("messages") or longer.get("input") or longer["contents"]
    assert json.dumps(again).startswith(start), "what was sent before must stay the same for the prompt cache"
