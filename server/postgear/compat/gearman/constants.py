"""The constants of ``gearman.constants``, with their values."""

from __future__ import annotations

from typing import Final

DEFAULT_GEARMAN_PORT: Final = 4730

PRIORITY_NONE: Final = None
PRIORITY_LOW: Final = "LOW"
PRIORITY_HIGH: Final = "HIGH"

JOB_UNKNOWN: Final = "UNKNOWN"
"""Not submitted, or its server was lost."""
JOB_PENDING: Final = "PENDING"
"""Submitted; the server has not said that it has the job."""
JOB_CREATED: Final = "CREATED"
"""The server has the job; for a background job that is all there is to know."""
JOB_FAILED: Final = "FAILED"
JOB_COMPLETE: Final = "COMPLETE"
