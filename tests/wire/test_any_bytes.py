"""Properties of the parser: any packets cut anywhere are the same packets, and no bytes make it raise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postgear.wire.connection import FATAL, FATAL_TEXT, INVALID, TEXT, PacketReader
from postgear.wire.packet import ARGUMENT_COUNT, PacketType, encode_request, encode_response

REDUCE = (PacketType.SUBMIT_REDUCE_JOB, PacketType.SUBMIT_REDUCE_JOB_BACKGROUND)
ANY_MESSAGE = [FATAL_TEXT, FATAL, INVALID, TEXT]

field = st.binary(max_size=20).map(lambda value: value.replace(b"\0", b"n"))
data = st.binary(max_size=60)


@st.composite
def packets(draw: st.DrawFn) -> tuple[int, tuple[bytes, ...]]:
    """A type and arguments that it may have; NULs in the last one only."""
    kind = draw(st.sampled_from(list(PacketType)))
    count = ARGUMENT_COUNT[kind]
    arguments = [draw(field) for _ in range(count - 1)]
    if kind in REDUCE:
        arguments[3] = draw(st.sampled_from([b"", b"0", b"1"]))
    if count:
        arguments.append(draw(data))
    return int(kind), tuple(arguments)


lines = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r").lstrip(b"\0"))
messages = st.lists(st.one_of(packets(), lines), max_size=12)


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream in any pieces."""
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)]


def read(reader: PacketReader, chunks: list[bytes]) -> list[tuple[int, tuple[bytes, ...]]]:
    return [(kind, tuple(arguments)) for chunk in chunks for kind, arguments in reader.feed(chunk)]


@given(messages, st.data())
@settings(max_examples=300)
def test_any_messages_in_any_chunks_are_read_as_written(
    written: list[tuple[int, tuple[bytes, ...]] | bytes], drawn: st.DataObject
) -> None:
    stream = b"".join(
        message + b"\r\n" if isinstance(message, bytes) else encode_request(message[0], *message[1]) for message in written
    )
    expected = [(TEXT, (message,)) if isinstance(message, bytes) else message for message in written]

    assert read(PacketReader(), drawn.draw(cuts(stream))) == expected


@given(packets())
def test_a_response_differs_from_a_request_in_its_magic_alone(packet: tuple[int, tuple[bytes, ...]]) -> None:
    request = encode_request(packet[0], *packet[1])
    response = encode_response(packet[0], *packet[1])

    assert request[:4] == b"\0REQ"
    assert response == b"\0RES" + request[4:]
    assert read(PacketReader(b"\0RES"), [response]) == [packet]


nearly_packets = st.tuples(
    st.sampled_from([b"\0REQ", b"\0RES", b"\0REX", b"\0", b""]),
    st.integers(0, 60).map(lambda kind: kind.to_bytes(4, "big")),
    st.integers(0, 70).map(lambda length: length.to_bytes(4, "big")),
    st.binary(max_size=70),
).map(b"".join)


@given(
    st.lists(st.one_of(st.binary(max_size=80), nearly_packets, packets().map(lambda p: encode_request(p[0], *p[1])))), st.data()
)
@settings(max_examples=500)
def test_garbage_never_raises_and_reads_the_same_in_any_chunks(pieces: list[bytes], drawn: st.DataObject) -> None:
    stream = b"".join(pieces)
    whole = read(PacketReader(max_packet_bytes=64), [stream])

    assert read(PacketReader(max_packet_bytes=64), drawn.draw(cuts(stream))) == whole
    for kind, _ in whole:
        assert kind >= 0 or kind in ANY_MESSAGE
    assert not any(kind in (FATAL, FATAL_TEXT) for kind, _ in whole[:-1]), "nothing is read after a fatal message"
