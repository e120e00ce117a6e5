"""What a worker program tells: a line of JSON a tick while jobs run, {"jobs", "first", "last"}, times of the monotonic clock."""

from __future__ import annotations

import json
import sys
import threading
import time

_TICK_SECONDS = 0.05


class Progress:
    """Counts calls of the function. `tick` costs about as much as a function that does nothing should."""

    def __init__(self) -> None:
        self.jobs = 0
        self._first = 0.0
        self._last = 0.0
        threading.Thread(target=self._tell, daemon=True).start()

    def tick(self) -> None:
        """Count one call."""
        self._last = time.monotonic()
        if not self.jobs:
            self._first = self._last
        self.jobs += 1

    def _tell(self) -> None:
        told = 0
        while True:
            time.sleep(_TICK_SECONDS)
            jobs = self.jobs
            if jobs != told:
                told = jobs
                sys.stdout.write(json.dumps({"jobs": jobs, "first": self._first, "last": self._last}) + "\n")
                sys.stdout.flush()
