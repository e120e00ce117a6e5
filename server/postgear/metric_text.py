"""Prometheus's text format, version 0.0.4: what the pages ``/metrics`` of a server and of a standby are written in."""

from __future__ import annotations

from collections.abc import Iterable

Sample = tuple[str, float]
"""Labels as ``labels`` writes them, or nothing; and the value."""


class MetricText:
    """A page, metric after metric."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, about: str, samples: Iterable[Sample] | float) -> None:
        """Write a metric. kind: "gauge" or "counter". samples: a number is one without labels."""
        self._lines += (f"# HELP {name} {about}", f"# TYPE {name} {kind}")
        for written, value in [("", samples)] if isinstance(samples, int | float) else samples:
            self._lines.append(f"{name}{written} {value:g}")

    def text(self) -> str:
        """Return the page."""
        return "\n".join(self._lines) + "\n"


def labels(**values: str) -> str:
    """Write labels, in braces."""
    escaped = {name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name, value in values.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
