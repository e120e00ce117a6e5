"""The samples of a run, their medians, the verdicts on the targets, and the JSON file of it all."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Final

from .contestants import Contestant
from .programs import Figures
from .row import Figure, Row, Target

FOLDER: Final = Path(__file__).resolve().parent / "results"


@dataclasses.dataclass
class Results:
    """Every sample of a run: by row and contestant, in the order they were taken.

    failures: "row contestant: why" of each measurement that did not come to an end.
    """

    samples: dict[tuple[str, str], list[Figures]] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)

    def add(self, row: Row, contestant: Contestant, figures: Figures) -> None:
        """Keep one sample."""
        self.samples.setdefault((row.name, contestant.name), []).append(figures)

    def median(self, row: Row, contestant: Contestant, name: str) -> float | None:
        """Return the median of a figure; None if no sample has it."""
        values = [figures[name] for figures in self.samples.get((row.name, contestant.name), []) if name in figures]
        return statistics.median(values) if values else None

    def ratio(self, row: Row, figure: Figure, other: Contestant, of: Contestant | None = None) -> float | None:
        """Return a median divided by *other*'s; None if one is missing or they cannot be compared.

        of: whose; None: the subject's.
        """
        of = of or row.subject
        ours, theirs = self.median(row, of, figure.name), self.median(row, other, figure.name)
        if not ours or not theirs or (figure.grows_with_jobs and self._jobs(row, of) != self._jobs(row, other)):
            return None
        return ours / theirs

    def _jobs(self, row: Row, contestant: Contestant) -> float | None:
        return self.median(row, contestant, "jobs")

    def reached(self, row: Row, figure: Figure, target: Target) -> bool | None:
        """Say whether *target* is reached; None if there is nothing to say it by."""
        if target.against is not None:
            measured = self.ratio(row, figure, target.against, target.of)
        else:
            measured = self.median(row, target.of or row.subject, figure.name)
        if measured is None:
            return None
        return measured <= target.value if figure.less_is_better else measured >= target.value

    def summary(self, rows: list[Row]) -> dict[str, object]:
        """Return medians, ratios and verdicts by row and figure, for JSON."""
        return {
            f"{row.name}.{figure.name}": {
                "unit": figure.unit,
                "median": _known({c.name: self.median(row, c, figure.name) for c in row.contestants}),
                "subject": row.subject.name,
                "ratio_to": _known({c.name: self.ratio(row, figure, c) for c in row.contestants if c is not row.subject}),
                "targets": [
                    {
                        "at_most" if figure.less_is_better else "at_least": target.value,
                        "of": (target.of or row.subject).name,
                        "times": target.against.name if target.against else None,
                        "reached": self.reached(row, figure, target),
                    }
                    for target in figure.targets
                ],
            }
            for row in rows
            for figure in row.figures
        }

    def save(self, name: str, rows: list[Row], about: dict[str, object]) -> Path:
        """Write everything to bench/results/*name*.json and return the path."""
        samples = {
            row.name: {c.name: self.samples[row.name, c.name] for c in row.contestants if (row.name, c.name) in self.samples}
            for row in rows
        }
        document = {**about, "summary": self.summary(rows), "samples": samples, "failures": self.failures}
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        return path


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
