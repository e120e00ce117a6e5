"""The packet codec against hex vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from postgear.wire.packet import ARGUMENT_COUNT, PacketType, encode_request, encode_response, split_reduce

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors" / "packets.json").read_text())


def vector_id(vector: dict[str, Any]) -> str:
    return f"{vector['magic']}-{vector['name']}-{VECTORS.index(vector)}"


def test_there_is_a_vector_for_every_type() -> None:
    assert {vector["type"] for vector in VECTORS} == set(range(1, 43))
    assert {vector["name"]: vector["type"] for vector in VECTORS if vector["type"] != 5} == {
        kind.name: kind.value for kind in PacketType
    }


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_a_packet_is_written_as_in_its_vector(vector: dict[str, Any]) -> None:
    encode = encode_request if vector["magic"] == "REQ" else encode_response
    arguments = [argument.encode("latin-1") for argument in vector["arguments"]]

    assert encode(vector["type"], *arguments) == bytes.fromhex(vector["hex"])


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_the_argument_table_counts_as_the_vector_has(vector: dict[str, Any]) -> None:
    if vector["type"] == 5:
        assert 5 not in ARGUMENT_COUNT
    else:
        assert ARGUMENT_COUNT[PacketType(vector["type"])] == len(vector.get("read_as", vector["arguments"]))


def test_the_length_counts_bytes_and_separators() -> None:
    packet = encode_request(PacketType.SUBMIT_JOB, b"f", b"u", b"\0\0\0")

    assert packet[8:12] == b"\0\0\0\7"
    assert packet[12:] == b"f\0u\0\0\0\0"


def test_a_reduce_body_of_five_arguments_keeps_its_flag() -> None:
    assert split_reduce(b"map\0u\0fold\x001\0data") == [b"map", b"u", b"fold", b"1", b"data"]


def test_a_reduce_body_of_four_arguments_has_an_empty_flag() -> None:
    assert split_reduce(b"map\0u\0fold\0data") == [b"map", b"u", b"fold", b"", b"data"]


def test_a_reduce_body_of_four_arguments_may_hold_nuls_in_its_data() -> None:
    assert split_reduce(b"map\0u\0fold\0some\0data\0") == [b"map", b"u", b"fold", b"", b"some\0data\0"]


@pytest.mark.parametrize("body", [b"", b"map", b"map\0u", b"map\0u\0fold"])
def test_a_reduce_body_without_its_separators_is_refused(body: bytes) -> None:
    assert split_reduce(body) is None
