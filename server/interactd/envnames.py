"""Which environment variables of a host may reach the daemon. A leaf without any import: the shim uses it too.

Names only, and no patterns on purpose: a pattern such as `*_API_KEY` would carry keys along that no provider here uses.
Names that the configuration file mentions (`api_key_env = "GROQ_API_KEY"`) are allowed as well; `mentioned` finds them
without parsing the file, since the shim must start before anything heavy is imported, and the daemon filters again.
"""

KEY_NAMES = (
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OPENAI_API_KEY",
)
"""Hold secrets: their values are removed from every text that could be shown or logged."""

URL_NAMES = (
    "ANTHROPIC_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    "OLLAMA_HOST",
    "OPENAI_BASE_URL",
)

ENV_NAMES = (*KEY_NAMES, *URL_NAMES)

MAX_NAMES = 64
MAX_VALUE = 8192
"""A longer value is no key and no address; it is left out."""


def mentioned(config_text: str) -> set[str]:
    """Find the names that `api_key_env` settings give in a TOML text, also in a broken one.

    Finding too many is harmless (a name in a comment), since the daemon takes only what the parsed file allows.
    """
    found: set[str] = set()
    for rest in config_text.split("api_key_env")[1:]:
        after = rest.lstrip("\"' \t")
        if not after.startswith("="):
            continue
        after = after[1:].lstrip(" \t")
        quote = after[:1]
        if quote in ('"', "'"):
            name = after[1:].split(quote, 1)[0]
            if name.isidentifier() and name.isascii():
                found.add(name)
    return found


def select(env: "dict[str, str]", extra: "set[str] | frozenset[str]" = frozenset()) -> "dict[str, str]":
    """Pick the allowed part of an environment.

    Args:
        env: names and values; `dict(os.environ)` or what a host sent.
        extra: further allowed names (see `mentioned`).

    Returns:
        A dict of the allowed names that are set to something, at most MAX_NAMES of them.
    """
    names = [*ENV_NAMES, *sorted(extra)][:MAX_NAMES]
    return {name: env[name] for name in names if 0 < len(env.get(name, "")) <= MAX_VALUE}
