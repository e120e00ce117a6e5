"""What `postgear standby` tells over HTTP (``--http``): whether it lives, whether it would take over, and its numbers.

The pages are made of a ``Report``; they ask nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from postgear import __version__
from postgear.metric_text import MetricText, labels
from postgear.standby.decision import Facts, Verdict
from postgear.standby.state import Role
from postgear.web import Page


@dataclass(frozen=True)
class Report:
    """How it is at one moment."""

    name: str
    role: Role
    is_stopping: bool
    is_serving: bool
    """Whether the server of a promoted standby runs."""
    is_auto_promote: bool
    facts: Facts
    """Of a replica; they stand still after its promotion, as do the rest."""
    verdict: Verdict
    prospect: Verdict
    """See ``decision.prospect``."""
    confirmed_since: float
    """From when on it was known that the primary's commits wait, if ``facts.is_confirmed``; of another boot: minus infinity."""
    is_streaming: bool
    lag_bytes: int | None
    """What of the primary's WAL is not replayed here, as the primary last said; None: it has said nothing yet."""


def pages(report: Callable[[], Report]) -> Mapping[str, Page]:
    """Return the pages by their paths."""

    async def live() -> tuple[int, str]:
        return 200, "live\n"

    async def is_ready() -> tuple[int, str]:
        why_not = unready(report())
        return (503, why_not + "\n") if why_not else (200, "ready\n")

    async def numbers() -> tuple[int, str]:
        return 200, metrics(report())

    return {"/live": live, "/ready": is_ready, "/metrics": numbers}


def unready(report: Report) -> str:
    """Say why a replica would not take over by itself, or why a promoted one does not serve; empty: it would, or does."""
    if report.is_stopping:
        return "stopping"
    if report.role is Role.PROMOTED:
        return "" if report.is_serving else "promoted, but the server does not run"
    if report.role is not Role.REPLICA:
        return f"{report.role.value}"
    if report.prospect is Verdict.PROMOTE:
        return ""
    return f"it would not take over; the log would say: {report.prospect.value}"


def metrics(report: Report) -> str:
    """Return the numbers; those of a replica only as long as it is one."""
    page = MetricText()
    add = page.add
    facts = report.facts
    add("postgear_standby_info", "gauge", "Always 1.", [(labels(version=__version__, name=report.name), 1)])
    roles = [(labels(role=role.value), role is report.role) for role in Role]
    add("postgear_standby_role", "gauge", "What the PostgreSQL here is: 1 for one of them.", roles)
    add("postgear_standby_ready", "gauge", "Whether it would take over by itself, or serves: as /ready.", not unready(report))
    add("postgear_standby_auto_promote", "gauge", "Whether it may take over without being asked.", report.is_auto_promote)
    if report.role is not Role.REPLICA:
        add("postgear_standby_server_running", "gauge", "Whether the server here runs.", report.is_serving)
        return page.text()
    verdicts = [(labels(verdict=verdict.name.lower()), verdict is report.verdict) for verdict in Verdict]
    add("postgear_standby_verdict", "gauge", "What is done about the primary, and why not more: 1 for one of them.", verdicts)
    about = "Whether the primary's commits wait for this replica, as far as is known here."
    add("postgear_standby_synchronous", "gauge", about, facts.is_confirmed)
    if facts.is_confirmed and math.isfinite(report.confirmed_since):
        about = "For how long that has been known without a break."
        add("postgear_standby_synchronous_seconds", "gauge", about, facts.now - report.confirmed_since)
        about = "Since the primary last said so; it is believed for --trust-seconds."
        add("postgear_standby_confirmed_seconds", "gauge", about, facts.now - facts.confirmed_at)
    about = "Since the primary was last heard, by whatever path."
    add("postgear_standby_primary_silent_seconds", "gauge", about, facts.now - facts.heard_at)
    add("postgear_standby_streaming", "gauge", "Whether the replica gets the primary's WAL.", report.is_streaming)
    if report.lag_bytes is not None:
        about = "WAL of the primary that is not replayed here, as it last said."
        add("postgear_standby_replay_lag_bytes", "gauge", about, report.lag_bytes)
    add("postgear_standby_detached", "gauge", "Whether `postgear detach` let the primary go on alone.", facts.is_detached)
    return page.text()
