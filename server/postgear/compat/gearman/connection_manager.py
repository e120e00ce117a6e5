"""What client, worker and admin client share: servers, and encoders of data; as in ``gearman.connection_manager``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from postgear.client.calls import Address, deadline_after
from postgear.client.links import Links
from postgear.client.operations import echo
from postgear.errors import ServerError

from . import errors
from .constants import DEFAULT_GEARMAN_PORT
from .errors import GearmanError, ProtocolError, ServerUnavailable
from .job import GearmanJob

CONNECT_SECONDS = 5.0
"""How long a server may take to show that it is there."""

Host = str | tuple[str, int | str]


class DataEncoder:
    """Makes bytes of what a program hands over, and the reverse. Subclass it and set ``data_encoder``."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return bytes, or text to be sent as UTF-8."""
        raise NotImplementedError

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        """Return what the bytes stand for."""
        raise NotImplementedError


class NoopEncoder(DataEncoder):
    """Leaves bytes as they are; text goes as UTF-8 and comes back as bytes."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Raises TypeError for what is neither bytes nor text."""
        if not isinstance(encodable_object, bytes | str):
            raise TypeError(f"Expecting byte string, got {type(encodable_object)!r}")
        return encodable_object

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        """Return the bytes."""
        return decodable_string


class GearmanConnection:
    """A server: where it is. The connections themselves are postgear's, made when they are needed."""

    def __init__(self, host: str, port: int) -> None:
        self.gearman_host = host
        self.gearman_port = port

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    def get_address(self) -> tuple[str, int]:
        """Return host and port."""
        return self.gearman_host, self.gearman_port

    @property
    def address(self) -> Address:
        """The same for postgear."""
        return Address(self.gearman_host, self.gearman_port)


class GearmanConnectionManager:
    """The servers of a client or worker: ``host``, ``host:port`` or (host, port)."""

    data_encoder: ClassVar[Any] = NoopEncoder
    job_class: ClassVar[Any] = GearmanJob

    def __init__(self, host_list: Iterable[Host] | None = None) -> None:
        self.connection_list: list[GearmanConnection] = []
        self._links = Links()
        for host in host_list or ():
            self.add_connection(host)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} connection_list={self.connection_list!r}>"

    def add_connection(self, hostport_tuple: Host) -> GearmanConnection:
        """Add a server. Raises GearmanError for what names none, as do the dicts that asked pygearman for TLS."""
        connection = GearmanConnection(*_host_and_port(hostport_tuple))
        self.connection_list.append(connection)
        return connection

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """See that a server answers. Raises ConnectionError."""
        try:
            self._links.run([current_connection.address], deadline_after(CONNECT_SECONDS), echo(b"postgear"))
        except ServerError as error:
            raise errors.ConnectionError(str(error)) from error
        return current_connection

    def shutdown(self) -> None:
        """Close all connections."""
        self._links.close()

    def _establish_any(self) -> None:
        """Raise ServerUnavailable unless a server answers."""
        try:
            self._links.run(self._addresses(), deadline_after(CONNECT_SECONDS), echo(b"postgear"))
        except ServerError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: ServerError | None = None) -> ServerUnavailable:
        reason = f" ({error})" if error is not None else ""
        return ServerUnavailable(f"Found no valid connections in list: {self.connection_list!r}{reason}")

    def _addresses(self) -> list[Address]:
        if not self.connection_list:
            raise self._unavailable()
        return [connection.address for connection in self.connection_list]

    def _connection_to(self, server: str) -> GearmanConnection | None:
        """Return the one of the list that postgear calls *server*."""
        return next((each for each in self.connection_list if str(each.address) == server), None)

    def _encode(self, data: Any) -> bytes:
        encoded = self.data_encoder.encode(data)
        if isinstance(encoded, str):
            return encoded.encode()
        if not isinstance(encoded, bytes):
            raise ProtocolError(f"Received non-binary arguments: {encoded!r}")
        return encoded


def _host_and_port(host: Host) -> tuple[str, int]:
    try:
        if isinstance(host, tuple):
            name, port = host
            return name, int(port)
        name, colon, number = host.rpartition(":")
        return (name, int(number)) if colon else (host, DEFAULT_GEARMAN_PORT)
    except (ValueError, AttributeError):
        raise GearmanError(f"Expected HOST, HOST:PORT or (HOST, PORT); got {host!r}") from None
