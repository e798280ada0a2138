"""The configuration: what a person writes, and what they are told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from interactd import config, envnames, paths
from interactd.errors import ConfigError


def refused(text: str, env: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, Path("/etc/x/config.toml"), env)
    return caught.value


def test_no_file_is_a_valid_configuration(tmp_path: Path) -> None:
    loaded = config.load(paths.find({"INTERACTD_HOME": str(tmp_path)}), {})
    assert loaded.file is None
    assert loaded.defaults.model == "auto"
    assert loaded.defaults.ttl_s == 86400
    assert loaded.serve.host == "127.0.0.1"


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    home = paths.find({"INTERACTD_HOME": str(tmp_path)})
    home.config_file.parent.mkdir(parents=True)
    home.config_file.write_text(
        """
        [defaults]
        model = "groq/llama-3.3-70b"
        ttl = "7d"
        thinking_level = "high"
        wait_s = 20
        [providers.groq]
        kind = "openai-chat"
        base_url = "https://api.groq.com/openai/v1"
        api_key_env = "GROQ_API_KEY"
        models = ["llama-3.3-70b"]
        headers = { X-Team = "blue" }
        timeout_s = 60
        [embedded]
        threads = 1
        [daemon]
        idle_exit_s = 0
        [serve]
        port = 9000
        [limits]
        running = 4
        """
    )
    loaded = config.load(home, {})
    assert loaded.file == str(home.config_file)
    assert loaded.defaults.ttl_s == 7 * 86400
    assert loaded.providers["groq"].headers == {"X-Team": "blue"}
    assert loaded.providers["groq"].timeout_s == 60
    assert config.allowed_env(loaded) >= {"GROQ_API_KEY", "OPENAI_API_KEY", "OLLAMA_HOST"}


@pytest.mark.parametrize(
    ("text", "line", "field", "says"),
    [
        ('[defaults]\nmodle = "x"', 2, "defaults.modle", "did you mean 'model'?"),
        ("[defualts]\nwait_s = 1", 1, "defualts", "did you mean 'defaults'?"),
        (
            '[defaults]\n\nttl = "5 parsecs"',
            3,
            "defaults.ttl",
            "duration such as 90m, 24h, 7d or forever, got '5 parsecs'",
        ),
        ("[defaults]\nttl = true", 2, "defaults.ttl", "got true"),
        ('[serve]\nport = "80"', 2, "serve.port", "expected a whole number, got '80'"),
        ("[serve]\nport = 70000", 2, "serve.port", "at most 65535, got 70000"),
        ('[serve]\nallowed_hosts = "x"', 2, "serve.allowed_hosts", "expected a list"),
        ("[limits]\nrunning = 0", 2, "limits.running", "at least 1, got 0"),
        ('[defaults]\nthinking_level = "max"', 2, "defaults.thinking_level", "'xhigh', got 'max'"),
        ('[providers.groq]\nkind = "openai-chat"', 1, "providers.groq.base_url", "is missing"),
        ('[providers.g]\nkind = "openai"\nbase_url = "https://a"', 2, "providers.g.kind", "'openai-chat'"),
        (
            '[providers]\nx = { kind = "gemini", base_ur = "https://a" }',
            2,
            "providers.x.base_ur",
            "did you mean 'base_url'?",
        ),
        ("[providers.openai]\ntimeout_s = nan", 2, "providers.openai.timeout_s", "finite"),
        ("[providers.auto]\nmax_retries = 1", 1, "providers", "cannot name a provider"),
        ("providers = 3", 1, "providers", "expected a table, got 3"),
        ('file = "x"', 1, "file", "unknown key 'file'"),
    ],
)
def test_an_error_names_file_line_field_and_what_was_expected(text: str, line: int, field: str, says: str) -> None:
    error = refused(text)
    assert error.message.startswith(f"/etc/x/config.toml, line {line}: {field}: ")
    assert says in error.message
    assert (error.fields["line"], error.fields["field"]) == (line, field)


def test_every_problem_of_a_file_is_told_at_once_in_the_files_order() -> None:
    error = refused('[serve]\nprot = 1\nhost = 2\n[defaults]\nmodel = ""')
    assert [row.split(": ")[0][-1] for row in error.fields["problems"]] == ["2", "3", "5"]


@pytest.mark.parametrize(("text", "line"), [("a = ", 1), ("x = 1\n[y\n", 2), ("a = 1\na = 2", 2)])
def test_what_is_not_toml_says_where(text: str, line: int) -> None:
    assert f"line {line}: is not TOML" in refused(text).message


def test_a_file_that_is_not_text_says_where(tmp_path: Path) -> None:
    home = paths.find({"INTERACTD_HOME": str(tmp_path)})
    home.config_file.parent.mkdir(parents=True)
    home.config_file.write_bytes(b"[defaults]\n\xff\xfe")
    with pytest.raises(ConfigError, match="line 2: is not UTF-8"):
        config.load(home, {})


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    home = paths.find({"INTERACTD_HOME": str(tmp_path)})
    home.config_file.parent.mkdir(parents=True)
    home.config_file.write_bytes(b"\xef\xbb\xbf[defaults]\r\nwait_s = 5\r\n")
    assert config.load(home, {}).defaults.wait_s == 5


def test_a_folder_in_the_files_place_is_a_clear_error(tmp_path: Path) -> None:
    home = paths.find({"INTERACTD_HOME": str(tmp_path)})
    home.config_file.mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(home, {})


@pytest.mark.parametrize(
    "text",
    [
        '[providers.openai]\napi_key = "sk-SECRETSECRET"',
        '[providers.openai]\napi_key_env = "sk-SECRETSECRET"',
        '[providers.openai]\napi_key_env = "AIzaSECRETSECRET12ab"',
        '[providers.openai]\nheaders = { Authorization = "Bearer SECRETSECRET" }',
        '[providers.openai]\nheaders = { X-Key = "SECRET\\nSECRET" }',
        '[providers.openai]\nbase_url = "https://user:SECRETSECRET@api.example.com"',
        '[providers.openai]\nbase_url = "https://api.example.com/?key=SECRETSECRET"',
        '[providers.openai]\nbase_url = "ftp://SECRETSECRET"',
        '[providers.openai]\ntoken = "SECRETSECRET"',
    ],
)
def test_a_key_in_the_file_is_refused_and_never_repeated(text: str) -> None:
    error = refused(text)
    assert "SECRET" not in str(error.as_dict())


def test_the_environment_goes_over_the_file() -> None:
    env = {
        "INTERACTD_MODEL": "ollama/qwen3",
        "INTERACTD_SERVE_PORT": "9999",
        "INTERACTD_SERVE_ALLOWED_HOSTS": "a.example, b.example",
        "INTERACTD_EMBEDDED_ENABLED": "false",
        "INTERACTD_DEFAULTS_TTL": "forever",
        "INTERACTD_DAEMON_IDLE_EXIT_S": "1.5",
        "INTERACTD_HOME": "/somewhere",
    }
    loaded = config.parse("[serve]\nport = 1\nhost = '::1'", None, env)
    assert loaded.serve.model_dump() == {
        "host": "::1",
        "port": 9999,
        "allowed_hosts": ["a.example", "b.example"],
        "allowed_origins": [],
    }
    assert loaded.defaults.model == "ollama/qwen3"
    assert loaded.defaults.ttl_s is None
    assert loaded.embedded.enabled is False
    assert loaded.daemon.idle_exit_s == 1.5


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("INTERACTD_SERVE_PROT", "1", "did you mean 'port'?"),
        ("INTERACTD_SERVE_PORT", "eighty", "expected a whole number, got 'eighty'"),
        ("INTERACTD_SERVE_PORT", "99999", "at most 65535"),
        ("INTERACTD_DEFAULTS_TTL", "soon", "expected a duration"),
        ("INTERACTD_DEFAULTS_THINKING_LEVEL", "lots", "'minimal'"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, says: str) -> None:
    error = refused("", {name: value})
    assert error.message.startswith(f"environment variable {name}: ")
    assert says in error.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("2w", 1209600), ("3600", 3600), ("0", None)],
)
def test_durations_are_written_as_people_write_them(text: str, seconds: float | None) -> None:
    assert config.parse(f'[defaults]\nttl = "{text}"').defaults.ttl_s == seconds


def test_names_that_the_file_mentions_are_found_without_parsing_it() -> None:
    text = """
    [providers.a]
    api_key_env="A_KEY"
    [providers]
    b = { kind = "gemini", api_key_env = 'B_KEY' }
    "api_key_env" = "C_KEY"
    api_key_env = broken
    api_key_env = "not a name"
    # the api_key_env setting
    """
    assert envnames.mentioned(text) == {"A_KEY", "B_KEY", "C_KEY"}


def test_a_host_passes_on_only_allowed_names_with_sensible_values() -> None:
    env = {"OPENAI_API_KEY": "k", "HOME": "/root", "AWS_SECRET_ACCESS_KEY": "s", "GROQ_API_KEY": "g"}
    env |= {"GEMINI_API_KEY": "", "ANTHROPIC_API_KEY": "x" * 9000}
    assert envnames.select(env) == {"OPENAI_API_KEY": "k"}
    assert envnames.select(env, {"GROQ_API_KEY"}) == {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "g"}


def test_every_documented_default_is_the_real_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    loaded = config.Config()
    for section in ("defaults", "embedded", "daemon", "serve", "webhooks", "limits", "dispatch"):
        for field, value in getattr(loaded, section).model_dump().items():
            shown = "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert f"| `{field}` | `{shown}` |" in page, f"[{section}] {field} = {shown}"
    for field, info in config.Provider.model_fields.items():
        assert f"| `{field}` |" in page, f"{field} {info}"
