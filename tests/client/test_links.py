"""Reading lists of servers. What calls and their drivers do is tested at real servers."""

from __future__ import annotations

import pytest

from postgear.client.calls import Address, parse_servers


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        (" , ", []),
        ("one", [Address("one", 4730)]),
        ("one:1,two", [Address("one", 1), Address("two", 4730)]),
        (" [::1]:65535 ,[fe80::1]", [Address("::1", 65535), Address("fe80::1", 4730)]),
    ],
)
def test_a_list_of_servers(text: str, addresses: list[Address]) -> None:
    assert parse_servers(text) == addresses
    assert parse_servers(",".join(map(str, addresses))) == addresses


@pytest.mark.parametrize("text", ["one two", "::1", "one:", "one:x", "one:0", "one:65536", ":1", "one:-1", "one:١"])
def test_no_list_of_servers(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("[", r"\[")):
        parse_servers(text)
