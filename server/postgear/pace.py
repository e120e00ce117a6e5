"""How often an exchange looks for jobs, and whether it needs a NOTIFY for each: awake while jobs come fast, else asleep."""

from __future__ import annotations

from typing import Final

BUSY_POLL_SECONDS: Final = 0.005
"""How often an awake server looks for jobs that SQL queued: half of it is the typical delay, at about 2 % of a core."""
IDLE_POLL_SECONDS: Final = 1.0
"""How often a sleeping server looks all the same, should a NOTIFY have been missed."""
AWAKE_SECONDS: Final = 1.0
"""A server that found few jobs for so long goes to sleep."""
BUSY_JOBS: Final = 30
"""With so many jobs found within BUSY_WINDOW_SECONDS a server wakes: polling costs less than a NOTIFY with every commit."""
BUSY_WINDOW_SECONDS: Final = 0.1
POLL_SHARE: Final = 20
"""A poll that took t seconds and found nothing is followed by a pause of 20 t at least: it costs 5 % of a connection at most.
One that found jobs is followed by one of at least t, for there may be more."""


class Pace:
    """Until when an exchange is to be awake, by the loop's clock."""

    def __init__(self) -> None:
        self.awake_until = 0.0
        self._found = 0  # jobs, since _found_since
        self._found_since = 0.0

    def stay_awake(self, now: float) -> None:
        """Stay awake for a while, whatever is found."""
        self.awake_until = now + AWAKE_SECONDS

    def found(self, jobs: int, now: float) -> None:
        """Stay awake while jobs come fast; a few a second are found sooner by the NOTIFY of each."""
        if now - self._found_since > BUSY_WINDOW_SECONDS:
            self._found_since = now
            self._found = 0
        self._found += jobs
        if self._found >= BUSY_JOBS:
            self.stay_awake(now)
