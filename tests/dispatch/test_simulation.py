"""The simulation keeps every promise, and it notices when a rule is broken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from postgear.dispatch.dispatcher import Dispatcher
from postgear.job import Ending, Job
from postgear.store.memory import MemoryStore

from .simulation import Violation, simulate

SEEDS = 200
STEPS = 400
CHUNK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_and_nothing_is_done_twice_unseen(first: int) -> None:
    for seed in range(first, first + CHUNK):
        simulate(seed, STEPS)


def is_noticed(text: str) -> bool:
    """Say whether some seed leads to a violation with this text."""
    for seed in range(CHUNK):
        try:
            simulate(seed, STEPS)
        except Violation as error:
            if text in str(error):
                return True
    return False


def test_a_violation_names_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dispatcher, "receive", lambda *_: None)
    with pytest.raises(Violation, match=r"^seed 17, step 399: "):
        simulate(17, STEPS)


def test_a_finish_that_ignores_the_lease_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def finish_jobs(self: MemoryStore, ids: Sequence[int]) -> list[int]:
        return [job_id for job_id in ids if self._queue.jobs.pop(job_id, None) is None]

    monkeypatch.setattr(MemoryStore, "finish_jobs", finish_jobs)
    assert is_noticed("did not hold it")


def test_results_that_are_not_kept_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def finish_with_results(self: MemoryStore, results: dict[int, Ending]) -> list[int]:
        return await self.finish_jobs(list(results))

    monkeypatch.setattr(MemoryStore, "finish_with_results", finish_with_results)
    assert is_noticed("nothing is kept")


def test_jobs_of_dead_servers_that_stay_claimed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reap_leases(_self: MemoryStore) -> list[tuple[int, int]]:
        return []

    monkeypatch.setattr(MemoryStore, "reap_leases", reap_leases)
    assert is_noticed("jobs are left that nobody gets")


def test_a_lost_answer_that_is_not_settled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def release_others(_self: MemoryStore, _held: Sequence[int]) -> list[int]:
        return []

    monkeypatch.setattr(MemoryStore, "release_others", release_others)
    assert is_noticed("jobs are left that nobody gets")


def test_a_job_of_a_lost_worker_that_is_not_released_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dispatcher, "_lose", Dispatcher._end)
    assert is_noticed("jobs are left that nobody gets")


def test_a_redelivery_that_looks_like_the_first_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    release_jobs = MemoryStore.release_jobs

    async def forget_the_attempt(self: MemoryStore, ids: Sequence[int], *, given_out: bool) -> None:
        await release_jobs(self, ids, given_out=given_out and False)

    monkeypatch.setattr(MemoryStore, "release_jobs", forget_the_attempt)
    assert is_noticed("a second delivery was not marked as such")


def test_a_counter_that_is_off_by_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assign = Dispatcher._assign

    def count_twice(self: Dispatcher, peer: object, job: Job) -> None:
        assign(self, peer, job)  # type: ignore[arg-type]
        job.function.running += 1

    monkeypatch.setattr(Dispatcher, "_assign", count_twice)
    assert is_noticed("running of")
