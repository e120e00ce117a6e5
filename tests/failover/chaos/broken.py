"""Servers with a fault built in, to show that the harness finds it: ``python -m tests.failover.chaos.broken NAME serve …``.

The product has no such switch: its code is changed here, in the process that serves.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence

from postgear import cli, exchange, submits
from postgear.errors import StoreError, StoreInDoubt
from postgear.store import postgres, session, statements


def ack_local() -> None:
    """Acknowledge what only the primary has."""
    local = b"select set_config('synchronous_commit', 'local', false), "
    session.SETTINGS = local + session.SETTINGS.removeprefix(b"select ")  # type: ignore[misc]


def ack_in_doubt() -> None:
    """Acknowledge submits whose commit nobody knows about."""
    ended = submits.Submits._ended
    numbers = itertools.count(1_000_000_000)

    def trusting(self: submits.Submits, outcome: Sequence[int] | StoreError) -> None:
        if isinstance(outcome, StoreInDoubt) and self._batch is not None:
            outcome = [next(numbers) for _ in range(len(self._batch))]
        ended(self, outcome)

    submits.Submits._ended = trusting  # type: ignore[method-assign]


def finish_unfenced() -> None:
    """Delete what a worker completed, whoever holds it by then, and take no notice of a lease that is in doubt or lost."""
    exchange.LEASE_MARGIN = 1000.0  # type: ignore[misc]
    renew = postgres.PostgresStore.renew_lease

    async def renew_blindly(self: postgres.PostgresStore, *, sleeping: bool, duties_seconds: float | None = None) -> bool:
        await renew(self, sleeping=sleeping, duties_seconds=duties_seconds)
        return True

    postgres.PostgresStore.renew_lease = renew_blindly  # type: ignore[method-assign]
    statements.FINISH[b"finish_jobs"] = (
        b"with deleted as (delete from postgear.job where id = any ($2::bigint[]) and $1::bigint > 0 returning id)"
        b" select case when count(*) < 0 then array_agg(id) end from deleted"
    )


def attempts_uncounted() -> None:
    """Claim without counting the attempt, so that a second start looks like the first."""
    claim = statements.CLAIM[b"claim_jobs"]
    statements.CLAIM[b"claim_jobs"] = claim.replace(
        b"select *", b"select id, function_id, priority, 1::smallint, unique_key, reducer, workload"
    )


BREAKS: dict[str, Callable[[], None]] = {
    "ack-local": ack_local,
    "ack-in-doubt": ack_in_doubt,
    "finish-unfenced": finish_unfenced,
    "attempts-uncounted": attempts_uncounted,
}


if __name__ == "__main__":
    BREAKS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
