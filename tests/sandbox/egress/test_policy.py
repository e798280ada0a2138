"""From an environment's body to a policy: what is wrong is named by field, what is right has one meaning."""

from __future__ import annotations

from typing import Any

import pytest

from interactd.errors import InvalidArgument
from interactd.sandbox.egress.policy.addresses import not_public
from interactd.sandbox.egress.policy.hosts import BadHost, as_address, canonical, split_authority
from interactd.sandbox.egress.policy.patterns import Pattern
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.refusal import Refused
from sandbox.egress.parts import Keep

SECRET = "very-secret-value"
KEEP = Keep(
    {"id": "github", "type": "bearer_token", "token": SECRET},
    {"id": "bound", "type": "bearer_token", "token": SECRET, "trusted_domains": ["*.bound.test"]},
    {"id": "key", "type": "environment_variable", "value": SECRET, "trusted_domains": ["api.test"]},
)


@pytest.mark.parametrize(
    ("given", "one"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ.org", "example.org"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("[::1]", "::1"),
        ("2001:0db8::0001", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_a_host_has_one_spelling(given: str, one: str) -> None:
    assert canonical(given) == one


@pytest.mark.parametrize(
    "given",
    [
        *("", ".", "a..b", "-a.test", "a-.test", "a b.test", "a\tb", "a/b", "a\\b", "a\0b", "a%2eb", "*.test"),
        *("1.2.3", "0x7f.1", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "１２７.1", "127。1", "foo.0x1", "foo.123"),
        *("fe80::1%eth0", "[::1", "::1]", "a" * 64 + ".test", ".".join(["a" * 60] * 5)),
    ],
)
def test_what_is_not_a_host_or_an_address_in_disguise_is_refused(given: str) -> None:
    with pytest.raises(BadHost):
        canonical(given)


def test_full_width_digits_are_the_address_they_look_like() -> None:
    assert canonical("１２７.0.0.1") == "127.0.0.1"
    assert canonical("127。0。0。1") == "127.0.0.1"


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [("a.test", "a.test", None), ("A.test:8443", "a.test", 8443), ("[::1]:80", "::1", 80), ("::1", "::1", None)],
)
def test_an_authority_is_split(given: str, host: str, port: int | None) -> None:
    assert split_authority(given) == (host, port)


@pytest.mark.parametrize(
    "given", ["a@b", "a:b", "a:", "a:0", "a:+1", "a:65536", "a:1:2:g", "[::1]x", "[::1]:", "a#b", "a?b"]
)
def test_an_authority_that_is_malformed_is_refused(given: str) -> None:
    with pytest.raises(BadHost):
        split_authority(given)


@pytest.mark.parametrize("text", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_are_public(text: str) -> None:
    address = as_address(text)
    assert address is not None
    assert not_public(address) is None


@pytest.mark.parametrize(
    ("pattern", "host", "port", "covered"),
    [
        ("example.org", "example.org", 443, True),
        ("example.org", "example.org", 80, True),
        ("example.org", "example.org", 8443, False),
        ("example.org:8443", "example.org", 8443, True),
        ("example.org:8443", "example.org", 443, False),
        ("example.org", "www.example.org", 443, False),
        ("*.example.org", "www.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*", "anything.test", 443, True),
        ("*", "anything.test", 22, False),
        ("*", "8.8.8.8", 443, False),
        ("*:8080", "anything.test", 8080, True),
        ("8.8.8.8", "8.8.8.8", 443, True),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, host: str, port: int, covered: bool) -> None:
    assert Pattern.parse(pattern).covers(host, port) is covered
    assert str(Pattern.parse(str(Pattern.parse(pattern)))) == pattern


def test_without_a_network_everything_is_refused_and_the_answer_says_that_it_is_off() -> None:
    ways_to_say_it: list[Any] = [None, "disabled", {}, {"allowlist": []}, {"allowlist": "disabled"}]
    for network in ways_to_say_it:
        policy = Policy.from_environment(network, {}, None)
        assert policy.off
        with pytest.raises(Refused, match="network is off"):
            policy.check("example.org", 443)


def test_the_most_exact_rule_gives_its_credential() -> None:
    policy = Policy.from_environment(
        {"allowlist": ["*", "*.test", {"domain": "api.test", "credential": "github"}]}, {}, KEEP
    )
    assert policy.ends_tls("api.test", 443)
    assert not policy.ends_tls("www.test", 443)
    assert policy.ends_any_tls


WRONG: list[tuple[Any, Any, str]] = [
    ("open", {}, "network"),
    (["a.test"], {}, "network"),
    ({"allow": []}, {}, "network.allow"),
    ({"allowlist": "open"}, {}, "network.allowlist"),
    ({"allowlist": {"domain": "a.test"}}, {}, "network.allowlist"),
    ({"allowlist": [1]}, {}, "network.allowlist[0]"),
    ({"allowlist": ["a.test", {}]}, {}, "network.allowlist[1].domain"),
    ({"allowlist": [{"domain": "a.test", "ports": [1]}]}, {}, "network.allowlist[0].ports"),
    ({"allowlist": ["https://a.test/x"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["a.*.test"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["**.test"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["*.10.0.0.1"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["0.0.0.0"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["224.0.0.1"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["[::ffff:127.0.0.1]"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["2130706433"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["a.test:99999"]}, {}, "network.allowlist[0].domain"),
    ({"allowlist": ["a.test"] * 501}, {}, "network.allowlist"),
    ({"allowlist": [{"domain": "a.test", "credential": "none"}]}, {}, "network.allowlist[0].credential"),
    ({"allowlist": [{"domain": "a.test", "credential": 5}]}, {}, "network.allowlist[0].credential"),
    ({"allowlist": [{"domain": "a.test", "credential": "key"}]}, {}, "network.allowlist[0].credential"),
    ({"allowlist": [{"domain": "a.test", "credential": "bound"}]}, {}, "network.allowlist[0].credential"),
    ({"allowlist": [{"domain": "*", "credential": "github"}]}, {}, "network.allowlist[0].credential"),
    ({"allowlist": [{"domain": "*", "transform": {"X": "y"}}]}, {}, "network.allowlist[0].transform"),
    ({"allowlist": [{"domain": "a.test", "transform": "X: y"}]}, {}, "network.allowlist[0].transform"),
    ({"allowlist": [{"domain": "a.test", "transform": {"X Y": "y"}}]}, {}, "network.allowlist[0].transform"),
    ({"allowlist": [{"domain": "a.test", "transform": {"Host": "y"}}]}, {}, "network.allowlist[0].transform"),
    ({"allowlist": [{"domain": "a.test", "transform": {"X": "a\r\nb"}}]}, {}, "network.allowlist[0].transform.X"),
    (None, {"1A": "x"}, "env"),
    (None, {"A": 5}, "env.A"),
    (None, {"A": "a\0b"}, "env.A"),
    (None, {"A": {"secret": "x"}}, "env.A"),
    (None, {"A": {"credential": "none"}}, "env.A.credential"),
    (None, {"A": {"credential": "github"}}, "env.A.credential"),
    (None, ["A"], "env"),
]


@pytest.mark.parametrize(("network", "env", "field"), WRONG)
def test_a_wrong_field_is_named(network: Any, env: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Policy.from_environment(network, env, KEEP)
    assert caught.value.fields["field"] == field
    assert caught.value.message.startswith(field)


def test_a_misplaced_secret_is_not_quoted_by_the_error() -> None:
    wrong: list[Any] = [
        [{"transform": {"Authorization": SECRET}}],
        {"allowlist": {"transform": SECRET}},
        {"allowlist": [[SECRET]]},
        {"allowlist": [{"domain": {"x": SECRET}}]},
        {"allowlist": [{"domain": "a.test", "transform": [[SECRET]]}]},
        {"allowlist": [{"domain": "a.test", "transform": {"X": SECRET + "\n"}}]},
    ]
    for network in wrong:
        with pytest.raises(InvalidArgument) as caught:
            Policy.from_environment(network, {}, KEEP)
        assert SECRET not in str(caught.value.as_dict())


def test_values_and_references_make_the_sandboxs_environment() -> None:
    policy = Policy.from_environment(
        {"allowlist": [{"domain": "a.test", "credential": "github"}]},
        {
            "A": "1",
            "B": {"value": "2"},
            "C": {"credential": "key"},
            "D": {"credential": "key"},
            "E": {"credential": "github"},
        },
        KEEP,
    )
    assert (policy.env["A"], policy.env["B"]) == ("1", "2")
    assert policy.env["C"] == policy.env["D"] != policy.env["E"]
    assert [ref.trusts("a.test", 443) for ref in policy.references] == [False, True]
    assert SECRET not in repr(policy) + str(policy.env)


def test_a_listed_loopback_host_is_reached_through_the_proxy_and_the_rest_stays_the_sandboxs_own() -> None:
    assert "NO_PROXY" not in Policy.from_environment({"allowlist": ["a.test"]}, {}, None).env
    policy = Policy.from_environment({"allowlist": ["127.0.0.1:8000"]}, {}, None)
    assert policy.env["NO_PROXY"] == policy.env["no_proxy"] == "localhost,::1"
    mine = Policy.from_environment({"allowlist": ["127.0.0.1:8000"]}, {"NO_PROXY": "x"}, None)
    assert mine.env["NO_PROXY"] == "x"
