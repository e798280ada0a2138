"""agent.yaml with every field wrong in turn: the message has the line, the field, what was expected and what came."""

from __future__ import annotations

import dataclasses
import re

import pytest

from interactd.agents.manifest import schema
from interactd.errors import BadManifest
from interactd.nouns import GenerationConfig
from interactd.sandbox.port import GUARANTEES
from interactd.sandbox.port import Limits as SandboxLimits
from support.agent_folders import Home, write

# agent.yaml has `id` in line 1, `description` in line 2; what follows begins in line 3.
WRONG = [
    # what is written, the line, the field, words of the message
    ("model: 5", 3, "model", "expected text, got 5"),
    ("model: ''", 3, "model", "expected a model such as"),
    ("model: two words", 3, "model", "expected a model such as .* got 'two words'"),
    ("model: [a]", 3, "model", "expected text, got a list"),
    (f"model: {'x' * 300}", 3, "model", "at most 256 characters, got 300"),
    ('model: "a\\0b"', 3, "model", "control character U\\+0000"),
    ('model: "a\\ud800b"', 3, "model", "half of a surrogate pair U\\+D800"),
    ("modle: x", 3, "modle", "unknown field 'modle'; did you mean 'model'"),
    ("Model: x", 3, "Model", "unknown field 'Model'; did you mean 'model'"),
    ("colour: blue", 3, "colour", "unknown field 'colour'; known: id, description"),
    ("base_agent: Not An Id", 3, "base_agent", "expected 1 to 63 lower-case letters.* got 'Not An Id'"),
    ("base_agent: 7", 3, "base_agent", "expected text, got 7"),
    ("base_agent: ../other", 3, "base_agent", "expected 1 to 63"),
    ("shadows: yes", 3, "shadows", "expected true or false, got 'yes'"),
    ("shadows: 1", 3, "shadows", "expected true or false, got 1"),
    ("policy: always_allow", 3, "policy", "approvals"),
    ("budget: 5", 3, "budget", "expected a mapping .* got 5"),
    ("budget:\n  usd: -1", 4, "budget.usd", "at least 0, got -1"),
    ("budget:\n  eur: 1", 4, "budget.eur", "unknown field 'eur'"),
    ("budget:\n  turn:\n    steps: 1.5", 5, "budget.turn.steps", "a whole number, got 1.5"),
    ("tools: code_execution", 3, "tools", "expected a list, got 'code_execution'"),
    ("tools: [code_executon]", 3, "tools[0]", "unknown tool 'code_executon'; did you mean 'code_execution'"),
    ("tools: [7]", 3, "tools[0]", "expected the name of a built-in tool or a function's declaration, got 7"),
    ("tools: [files, files]", 3, "tools[1]", "'files' stands here twice, first as tools\\[0\\]"),
    ("tools:\n  - files\n  - type: functoin\n", 5, "tools[1].type", "got 'functoin'; did you mean 'function'"),
    ("tools:\n  - type: google_search", 4, "tools[0].type", "expected type: function or a built-in"),
    ("tools:\n  - type: function", 4, "tools[0].name", "is missing"),
    ("tools:\n  - type: function\n    name: a b", 5, "tools[0].name", "at most 64 letters"),
    ("tools:\n  - type: function\n    name: view_file", 5, "tools[0].name", "no built-in tool has"),
    ("tools:\n  - type: function\n    name: f\n    parameters: []", 6, "tools[0].parameters", "a mapping"),
    ("tools:\n  - {type: function, name: f, parameters: {type: string}}", 4, "tools[0].parameters", "type: object"),
    ("tools:\n  - {type: function, name: f, paramters: {}}", 4, "tools[0].paramters", "did you mean 'parameters'"),
    (f"tools: [{', '.join(['files'] * 65)}]", 3, "tools", "at most 64 items, got 65"),
    ("generation_config: hot", 3, "generation_config", "expected a mapping .* got 'hot'"),
    ("generation_config:\n  temperature: warm", 4, "generation_config.temperature", "expected a number, got 'warm'"),
    ("generation_config:\n  temperature: 3", 4, "generation_config.temperature", "at most 2, got 3"),
    ("generation_config:\n  temperature: .nan", 4, "generation_config.temperature", "finite number"),
    ("generation_config:\n  temprature: 1", 4, "generation_config.temprature", "did you mean 'temperature'"),
    ("generation_config:\n  thinking_level: hgih", 4, "generation_config.thinking_level", "did you mean 'high'"),
    ("generation_config:\n  seed: 1.5", 4, "generation_config.seed", "a whole number, got 1.5"),
    ("generation_config:\n  seed: 99999999999999", 4, "generation_config.seed", "at most 4294967295"),
    ("generation_config:\n  stop_sequences: ['']", 4, "generation_config.stop_sequences[0]", "got nothing"),
    ("environment: remote", 3, "environment", "expected a mapping"),
    ("environment:\n  sorces: []", 4, "environment.sorces", "did you mean 'sources'"),
    ("environment:\n  sources: {}", 4, "environment.sources", "expected a list"),
    ("environment:\n  sources: [x]", 4, "environment.sources[0]", "expected a mapping with `type`"),
    ("environment:\n  sources:\n  - type: inlin", 5, "environment.sources[0].type", "did you mean 'inline'"),
    ("environment:\n  sources:\n  - target: a", 5, "environment.sources[0]", "got nothing"),
    ("environment:\n  sources:\n  - {type: inline, target: a}", 5, "environment.sources[0].content", "is missing"),
    (
        "environment:\n  sources:\n  - {type: inline, target: ../a, content: x}",
        5,
        "environment.sources[0].target",
        "without `..`",
    ),
    (
        "environment:\n  sources:\n  - {type: inline, target: /etc/a, content: x}",
        5,
        "environment.sources[0].target",
        "a path in the workspace",
    ),
    (
        "environment:\n  sources:\n  - {type: inline, target: a, content: '%', encoding: base64}",
        5,
        "environment.sources[0].content",
        "base64",
    ),
    (
        "environment:\n  sources:\n  - {type: repository, source: 'file:///etc'}",
        5,
        "environment.sources[0].source",
        "a repository's address",
    ),
    (
        "environment:\n  sources:\n  - {type: local, source: /srv, mode: write}",
        5,
        "environment.sources[0].mode",
        "expected 'copy' or 'mount', got 'write'",
    ),
    ("environment:\n  env: [A]", 4, "environment.env", "expected a mapping"),
    ("environment:\n  env:\n    1A: x", 5, "environment.env.1A", "a name of letters"),
    ("environment:\n  env:\n    LD_PRELOAD: x", 5, "environment.env.LD_PRELOAD", "is not taken"),
    ("environment:\n  env:\n    A: 5", 5, "environment.env.A", "expected text .* got a number; put it in quotes"),
    ("environment:\n  env:\n    A: {credental: x}", 5, "environment.env.A.credental", "did you mean 'credential'"),
    ("environment:\n  env:\n    A: {credential: 5}", 5, "environment.env.A.credential", "expected text"),
    ("environment:\n  network: on", 4, "environment.network", "expected disabled.* got 'on'"),
    ("environment:\n  network: {allow: []}", 4, "environment.network.allow", "did you mean 'allowlist'"),
    ("environment:\n  network: {allowlist: x.org}", 4, "environment.network.allowlist", "expected a list"),
    (
        "environment:\n  network:\n    allowlist:\n      - 'http://x.org'",
        6,
        "environment.network.allowlist[0].domain",
        "a domain such as",
    ),
    ("environment:\n  network: {allowlist: [5]}", 4, "environment.network.allowlist[0]", "expected a domain"),
    ("environment:\n  limits: {memory_mb: 1}", 4, "environment.limits.memory_mb", "at least 32, got 1"),
    ("environment:\n  limits: {memory: 100}", 4, "environment.limits.memory", "did you mean 'memory_mb'"),
    ("requires: enforced", 3, "requires", "expected a mapping"),
    ("requires: {memroy: enforced}", 3, "requires.memroy", "did you mean 'memory'"),
    ("requires: {memory: enforce}", 3, "requires.memory", "did you mean 'enforced'"),
    ("requires: {memory: true}", 3, "requires.memory", "got true"),
    ("limits: 5", 3, "limits", "expected a mapping"),
    ("limits:\n  steps: many", 4, "limits.steps", "expected a whole number, got 'many'"),
    ("limits:\n  steps: 0", 4, "limits.steps", "at least 1, got 0"),
    ("limits:\n  steps: 1001", 4, "limits.steps", "at most 1000"),
    ("limits:\n  steps: '5'", 4, "limits.steps", "expected a whole number, got '5'"),
    ("limits:\n  tokens: 1.5", 4, "limits.tokens", "expected a whole number"),
    ("limits:\n  seconds: .inf", 4, "limits.seconds", "finite"),
    ("limits:\n  seconds: -1", 4, "limits.seconds", "at least 1"),
    (f"limits:\n  steps: {'9' * 400}", 4, "limits.steps", "one of 400 digits"),
    ("limits:\n  seconds: 5\n  seconds: 6", 5, "limits.seconds", "stands here twice, first in line 4"),
    ("id: again", 3, "id", "stands here twice, first in line 1"),
    ("limits: &a {steps: 5}", 3, "limits", "anchors and aliases are not read"),
    ("limits: *a", 3, "limits", "anchors and aliases are not read"),
    ("limits: !!python/name:os.system x", 3, "limits", "tags are not read"),
    ("limits: {steps: 5", 3, None, "this is no YAML"),
    ("---\nid: x", 3, None, "expected one document"),
    ("? [a]\n: 5", 3, None, "expected a plain name"),
    ("limits:\n\tsteps: 5", 4, None, "this is no YAML.*indent with spaces"),
    ("model: a: b", 3, None, "a text with a colon in it needs quotes"),
]


@pytest.mark.parametrize(("written", "line", "field", "words"), WRONG, ids=[case[0][:60] for case in WRONG])
def test_a_wrong_field_is_told_with_file_line_and_field(
    home: Home, written: str, line: int, field: str | None, words: str
) -> None:
    folder = home.config_agent("wrong", written)
    with pytest.raises(BadManifest) as told:
        home.resolve("wrong")
    error = told.value
    assert error.fields["file"] == str(folder / "agent.yaml")
    assert (error.fields["line"], error.fields["field"]) == (line, field), error.fields["problems"]
    assert re.search(words, error.message), error.message
    assert f"agent.yaml:{line}" in error.message
    assert error.message.isprintable()
    assert error.repair is not None
    assert "agents validate wrong" in error.repair


@pytest.mark.parametrize(
    ("written", "line", "field", "words"),
    [
        ("description: x", 1, "id", "is missing"),
        ("id: wrong", 1, "description", "is missing"),
        ("id: 5\ndescription: x", 1, "id", "expected text, got 5"),
        ("id:\ndescription: x", 1, "id", "expected text, got nothing"),
        ("id: other\ndescription: x", 1, "id", "expected 'wrong', the folder's name, got 'other'"),
        ("id: Wrong\ndescription: x", 1, "id", "lower-case"),
        ("id: wrong\ndescription:", 2, "description", "expected text, got nothing"),
        ("id: wrong\ndescription: '  '", 2, "description", "a sentence"),
        ("id: wrong\ndescription: [x]", 2, "description", "expected text, got a list"),
        (f"id: wrong\ndescription: {'x' * 2000}", 2, "description", "at most 1024 characters, got 2000"),
        ('id: wrong\ndescription: "\\e[31m"', 2, "description", "control character U\\+001B"),
        ("", 1, None, "the file is empty"),
        ("# nothing\n", 1, None, "the file is empty"),
        ("- a\n- b", 1, None, "got a list"),
        ("just text", 1, None, "got 'just text'"),
    ],
)
def test_what_every_agent_needs_is_asked_for(
    home: Home, written: str, line: int, field: str | None, words: str
) -> None:
    folder = home.config_agent("wrong")
    (folder / "agent.yaml").write_text(written)
    with pytest.raises(BadManifest, match=words) as told:
        home.resolve("wrong")
    assert (told.value.fields["line"], told.value.fields["field"]) == (line, field)


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"id: wrong\ndescription: caf\xe9\n", 2, "expected UTF-8, got the byte 0xe9"),
        (b"id: wrong\ndescription: a\0b\n", 2, r"control character U\+0000"),
        (b"id: wrong\n\n\ndescription: a\x1bb\n", 4, r"control character U\+001B"),
        ("id: wrong\ndescription: x\n".encode("utf-16"), 1, "got UTF-16"),
        (b"id: wrong\ndescription: \xed\xa0\x80\n", 2, "expected UTF-8"),
        (b"x" * 70_000, None, "at most 65536 bytes, got 70000"),
    ],
)
def test_a_manifest_that_is_no_text_is_told(home: Home, data: bytes, line: int | None, words: str) -> None:
    folder = home.config_agent("wrong")
    (folder / "agent.yaml").write_bytes(data)
    with pytest.raises(BadManifest, match=words) as told:
        home.resolve("wrong")
    assert told.value.fields["line"] == line


def test_all_mistakes_are_told_at_once(home: Home) -> None:
    folder = home.config_agent("wrong", "modle: x\nlimits: {steps: 0}\nrequires: {memory: much}\n")
    (folder / "hooks.json").write_text("[]")
    with pytest.raises(BadManifest, match=r"\(and 3 more\)") as told:
        home.resolve("wrong")
    assert len(told.value.fields["problems"]) == 4


def test_values_of_the_environment_are_not_repeated(home: Home) -> None:
    home.config_agent("wrong", "environment:\n  env:\n    KEY: [sk-secret]\n    B: {value: 5, more: sk-secret}\n")
    with pytest.raises(BadManifest) as told:
        home.resolve("wrong")
    assert "sk-secret" not in str(told.value.as_dict())


def test_everything_a_manifest_can_say_arrives_in_the_definition(home: Home) -> None:
    home.config_agent(
        "whole",
        """
        model: ollama/qwen3:8b
        tools: [code_execution, {type: files}, {type: function, name: look_up, description: Finds it.}]
        generation_config: {temperature: 0.5, thinking_level: low, stop_sequences: [END], seed: 7}
        environment:
          sources:
            - {type: inline, target: data/in.csv, content: "a,b"}
            - {type: repository, source: https://example.org/x/y, target: code, ref: main}
          env: {LANG: en, TOKEN: {credential: github}}
          network: {allowlist: [pypi.org, {domain: "*.example.org", credential: github}]}
          limits: {memory_mb: 512, cpu: 1}
        requires: {filesystem: enforced, memory: best_effort}
        limits: {steps: 7, tokens: 5000, seconds: 60}
        """,
    )
    found = home.resolve("whole")
    assert (found.model, found.tools) == ("ollama/qwen3:8b", ("code_execution", "files"))
    assert [(each["name"], each["parameters"]) for each in found.functions] == [
        ("look_up", {"type": "object", "properties": {}})
    ]
    assert found.generation_config == GenerationConfig(
        temperature=0.5, thinking_level="low", stop_sequences=["END"], seed=7
    )
    assert [each["target"] for each in found.environment["sources"]] == ["data/in.csv", "code"]
    assert found.environment["env"] == {"LANG": "en", "TOKEN": {"credential": "github"}}
    assert found.environment["network"]["allowlist"][0] == "pypi.org"
    assert found.environment["limits"] == {"memory_mb": 512, "cpu": 1}
    assert found.requires == {"filesystem": "enforced", "memory": "best_effort"}
    assert (found.limits.steps, found.limits.tokens, found.limits.seconds) == (7, 5000, 60)


def test_words_that_older_yaml_reads_as_something_else_stay_text(home: Home) -> None:
    folder = home.config_agent("plain")
    (folder / "agent.yaml").write_text("id: plain\ndescription: no\nmodel: 12:30:45\n")
    found = home.resolve("plain")
    assert (found.description, found.model) == ("no", "12:30:45")


def test_the_schema_has_the_fields_of_the_contracts() -> None:
    assert set(schema.Generation.model_fields) == {f.name for f in dataclasses.fields(GenerationConfig)}
    assert set(schema.Requires.model_fields) == set(GUARANTEES)
    assert set(schema.SandboxLimits.model_fields) == {f.name for f in dataclasses.fields(SandboxLimits)}


def test_an_id_that_the_hosted_service_has_for_the_built_in_agent_is_not_given_away(home: Home) -> None:
    write(home.config / "antigravity-preview-09-2026")
    _, problems = home.list()
    assert [problem.field for problem in problems] == ["id"]
