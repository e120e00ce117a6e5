"""``postgear submit --lines``: a background job for each line, as they come; their handles are written in the same order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from postgear.client.calls import Address
from postgear.client.links import Links
from postgear.client.operations import Submission, submit_many
from postgear.errors import NotAllSubmitted, ServerError, ServerRefused
from postgear.lines import Lines

ANSWER_SECONDS: Final = 30.0
"""How long the server may take for what one read of the input had, if no other time is given."""


def run(addresses: Sequence[Address], lines: Lines, job: Callable[[bytes], Submission], timeout_seconds: float | None) -> int:
    """Submit a job for each line; return the exit code: that of ServerError if any was refused.

    Raises ServerError after telling which lines may not have been queued, if the server cannot be reached or goes away.
    """
    links = Links()
    done = refused = 0
    for batch in lines.batches():
        deadline = time.monotonic() + (timeout_seconds or ANSWER_SECONDS)
        handles: Sequence[str | None]
        errors: dict[int, ServerError] = {}
        try:
            handles = links.run(addresses, deadline, submit_many(map(job, batch)))
        except NotAllSubmitted as error:
            handles, errors = error.handles, error.errors
        sys.stdout.write("".join(f"{handle}\n" for handle in handles if handle is not None))
        sys.stdout.flush()
        for position, refusal in errors.items():
            print(f"postgear: line {done + position + 1}: {refusal}", file=sys.stderr)
        done += len(batch)
        refused += len(errors)
        if any(not isinstance(each, ServerRefused) for each in errors.values()):
            raise ServerError(f"stopped after line {done}; {refused} of these lines are not known to be queued")
    links.close()
    if refused:
        print(f"postgear: {refused} of {done} refused", file=sys.stderr)
    return ServerError.exit_code if refused else 0
