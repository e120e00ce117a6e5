"""What each process of a worker is told: as words of the command line gave it, None where they did not say."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    """What to run, and what wins over what the worker was made with.

    app: ``MODULE:APP``; or else *command*, a shell command, with its *functions*, *timeout* and *retries*.
    max_memory: bytes.
    """

    app: str | None = None
    command: str | None = None
    functions: list[str] | None = None
    timeout: float | None = None
    retries: int = 0
    servers: str | None = None
    dsn: str | None = None
    concurrency: int | None = None
    client_id: str | None = None
    max_jobs: int | None = None
    max_memory: int | None = None
    drain_seconds: float | None = None
    log_level: str = "INFO"
    log_format: str = "text"
