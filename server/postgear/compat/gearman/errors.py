"""The exceptions of ``gearman.errors``. All are PostgearErrors; the one that explains them is their ``__cause__``."""

from __future__ import annotations

from postgear.errors import PostgearError


class GearmanError(PostgearError):
    """The root of these."""


class ConnectionError(GearmanError):  # noqa: A001  the name that programs catch
    """One server cannot be reached."""


class ServerUnavailable(GearmanError):
    """None of the servers can be reached."""


class ProtocolError(GearmanError):
    """Something that cannot be said to a server, or that a server should not have said."""


class UnknownCommandError(GearmanError):
    """Nothing here raises it; programs may name it."""


class ExceededConnectionAttempts(GearmanError):
    """A job was submitted as often as it may be, and no server took it."""


class InvalidClientState(GearmanError):
    """A request was not submitted yet, and is asked about."""


class InvalidWorkerState(GearmanError):
    """A job that does not run here is reported about."""


class InvalidAdminClientState(GearmanError):
    """The server did not answer an admin command in time."""
