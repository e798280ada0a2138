"""The key ring: one host's keys are never used for another, and no value ever shows."""

from __future__ import annotations

from interactd.errors import KeyRefused
from interactd.models import keys
from interactd.models.keys import KeyRing

OWN = {"OPENAI_API_KEY": "own-openai-key", "PATH": "/bin"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_connections_value_goes_before_the_daemons_own() -> None:
    ring = KeyRing(own=OWN)
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    ring.attach("con_b", {})
    assert ring.lookup("OPENAI_API_KEY", "con_a") == "key-of-a"
    assert ring.lookup("OPENAI_API_KEY", "con_b") == "own-openai-key"
    assert ring.lookup("OPENAI_API_KEY", "con_unheard_of") == "own-openai-key"
    assert ring.lookup("ANTHROPIC_API_KEY", "con_a") is None


def test_one_hosts_key_is_never_another_hosts() -> None:
    ring = KeyRing(own={})
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    ring.attach("con_b", {"GEMINI_API_KEY": "key-of-b"})
    assert ring.lookup("OPENAI_API_KEY", "con_b") is None
    assert ring.lookup("GEMINI_API_KEY", "con_a") is None


def test_a_resumed_run_takes_the_most_recent_connection_that_has_the_key() -> None:
    ring = KeyRing(own={"GEMINI_API_KEY": "own-gemini"})
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    ring.attach("con_b", {"OPENAI_API_KEY": "key-of-b"})
    ring.attach("con_c", {})
    assert ring.lookup("OPENAI_API_KEY", None) == "key-of-b"
    ring.attach("con_a", {"OPENAI_API_KEY": "newer-key-of-a"})
    assert ring.lookup("OPENAI_API_KEY", None) == "newer-key-of-a"
    ring.detach("con_a")
    assert ring.lookup("OPENAI_API_KEY", None) == "key-of-b"
    assert ring.lookup("GEMINI_API_KEY", None) == "own-gemini"


def test_a_key_outlives_its_connection_by_an_hour_for_the_runs_it_left_behind() -> None:
    clock = Clock()
    ring = KeyRing(own={}, clock=clock)
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    ring.detach("con_a")
    clock.now = keys.LINGER_S - 1
    assert ring.lookup("OPENAI_API_KEY", "con_a") == "key-of-a"
    clock.now = keys.LINGER_S + 1
    assert ring.lookup("OPENAI_API_KEY", "con_a") is None
    assert ring.lookup("OPENAI_API_KEY", None) is None


def test_a_connection_that_comes_back_is_attached_again() -> None:
    clock = Clock()
    ring = KeyRing(own={}, clock=clock)
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    ring.detach("con_a")
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    clock.now = keys.LINGER_S * 2
    assert ring.lookup("OPENAI_API_KEY", "con_a") == "key-of-a"


def test_old_connections_do_not_pile_up() -> None:
    ring = KeyRing(own={})
    for n in range(keys.KEPT * 3):
        ring.attach(f"con_{n}", {"OPENAI_API_KEY": f"key-of-{n}"})
        ring.detach(f"con_{n}")
    assert ring.lookup("OPENAI_API_KEY", "con_0") is None
    assert ring.lookup("OPENAI_API_KEY", f"con_{keys.KEPT * 3 - 1}") is not None


def test_only_allowed_names_are_taken() -> None:
    ring = KeyRing(["OPENAI_API_KEY"], own=OWN)
    assert ring.attach("con_a", {"OPENAI_API_KEY": " key \n", "AWS_SECRET": "x", "GEMINI_API_KEY": "y"}) == [
        "OPENAI_API_KEY"
    ]
    assert ring.lookup("AWS_SECRET", "con_a") is None
    assert ring.lookup("PATH", None) is None
    assert ring.lookup("OPENAI_API_KEY", "con_a") == "key"


def test_a_key_and_its_address_come_from_one_environment() -> None:
    ring = KeyRing(own={"OPENAI_API_KEY": "own-key", "OPENAI_BASE_URL": "https://own.example"})
    ring.attach("con_a", {"OPENAI_BASE_URL": "https://elsewhere.example"})
    env = ring.environment(("OPENAI_API_KEY", "OPENAI_BASE_URL"), "con_a")
    assert dict(env) == {"OPENAI_BASE_URL": "https://elsewhere.example"}


def test_no_value_shows_in_repr() -> None:
    ring = KeyRing(own=OWN)
    ring.attach("con_a", {"OPENAI_API_KEY": "key-of-a"})
    assert "key-of-a" not in repr(ring) + str(ring)
    assert "own-openai" not in repr(ring)


def test_every_known_secret_is_removed_from_a_text() -> None:
    ring = KeyRing(["OPENAI_API_KEY", "GROQ_TOKEN", "OPENAI_BASE_URL"], own=OWN)
    ring.attach("con_a", {"GROQ_TOKEN": "tok/en+with=signs", "OPENAI_BASE_URL": "https://x.example"})
    ring.remember("secret-of-a-file")
    text = ring.scrub(
        "own-openai-key, tok/en+with=signs, tok%2Fen%2Bwith%3Dsigns, secret-of-a-file, "
        "sk-proj-abcdefghijklmnop, AIzaSyA1234567890123456789012345678901, https://x.example"
    )
    assert text.count(keys.MASK) == 6
    assert "https://x.example" in text


def test_an_error_is_scrubbed_everywhere() -> None:
    ring = KeyRing(own=OWN)
    error = KeyRefused("bad own-openai-key", repair="not own-openai-key", provider="x", more=[{"k": "own-openai-key"}])
    shown = str(ring.scrub_error(error).as_dict()) + str(error) + repr(error)
    assert "own-openai-key" not in shown


def test_callers_without_an_environment_use_the_lenders_and_nobody_elses() -> None:
    ring = KeyRing(own={})
    ring.attach("con_host", {"OPENAI_API_KEY": "key-of-a-host"})
    ring.attach("con_serve", {"OPENAI_API_KEY": "key-of-serve"})
    ring.attach("con_keyless", {})
    assert ring.lookup("OPENAI_API_KEY", "http_1") is None
    ring.lend("con_serve")
    assert ring.lookup("OPENAI_API_KEY", "http_1") == "key-of-serve"
    assert ring.lookup("OPENAI_API_KEY", "con_keyless") is None
    ring.detach("con_serve")
    assert ring.lookup("OPENAI_API_KEY", "http_1") is None
