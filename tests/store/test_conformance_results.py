"""What every store must do, asked of both: keep how jobs have ended."""

from __future__ import annotations

import psycopg
import pytest

from postgear import job
from postgear.job import Ending
from postgear.store.base import Store
from tests.store.both_stores import Queue, on_both_stores

DONE = Ending(True, b"done")
DAY = 86400.0


@pytest.fixture
def short_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of more than 10 bytes are too long."""
    monkeypatch.setattr(job, "RESULT_MAX_BYTES", 10)


async def keeping(queue: Queue, seconds: float | None = DAY) -> Store:
    """Start a server; f keeps results."""
    store = await queue.server()
    queue.keep_results(seconds)
    return store


@on_both_stores
async def test_whether_a_function_keeps_results_is_learnt(queue: Queue) -> None:
    store = await queue.server()
    assert [row.keeps_results for row in await store.ensure_functions([b"g", b"f"])] == [False, False]
    queue.keep_results(DAY)
    assert await queue.notification() == "functions"
    assert [row.keeps_results for row in await store.ensure_functions([b"g", b"f"])] == [False, True]
    queue.keep_results(None)
    assert [row.keeps_results for row in await store.ensure_functions([b"g", b"f"])] == [False, False]


@on_both_stores
async def test_jobs_end_and_how_they_ended_is_kept(queue: Queue) -> None:
    store = await keeping(queue)
    ids = await queue.submit(store, *({"claim": True} for _ in range(5)))
    ended = [DONE, Ending(True, b""), Ending(False, b"why"), Ending(False, None)]
    assert await store.finish_with_results(dict(zip(ids, ended, strict=False))) == []
    assert [job.id for job in await store.list_jobs(0, 10)] == [ids[4]]
    assert queue.results() == dict(zip(ids, ended, strict=False))


@pytest.mark.usefixtures("short_results")
@on_both_stores
async def test_of_a_result_that_is_too_long_the_outcome_is_kept(queue: Queue) -> None:
    store = await keeping(queue)
    fits, longer = await queue.submit(store, {"claim": True}, {"claim": True})
    assert await store.finish_with_results({fits: Ending(True, b"x" * 10), longer: Ending(True, b"x" * 11)}) == []
    assert queue.results() == {fits: Ending(True, b"x" * 10), longer: Ending(True, None)}


@on_both_stores
async def test_nothing_is_kept_of_jobs_that_the_server_does_not_hold(queue: Queue) -> None:
    stale, holder = await keeping(queue), await queue.server("b")
    (own,) = await queue.submit(stale, {"claim": True})
    queued, lost = await queue.submit(holder, {}, {"claim": True})
    given = dict.fromkeys((lost, own, queued, 12345), DONE)
    assert sorted(await stale.finish_with_results(given)) == sorted([lost, queued, 12345])
    assert queue.results() == {own: DONE}
    assert await holder.finish_with_results({lost: Ending(False, None)}) == []
    assert queue.results() == {own: DONE, lost: Ending(False, None)}


@on_both_stores
async def test_a_call_that_is_repeated_changes_nothing(queue: Queue) -> None:
    store = await keeping(queue)
    (job_id,) = await queue.submit(store, {"claim": True})
    assert await store.finish_with_results({job_id: DONE}) == []
    assert await store.finish_with_results({job_id: Ending(False, b"again")}) == [job_id]
    assert queue.results() == {job_id: DONE}


@on_both_stores
async def test_a_result_for_a_function_that_keeps_none_any_more_is_dropped_with_its_job(queue: Queue) -> None:
    store = await keeping(queue)
    queue.keep_results(None)
    (job_id,) = await queue.submit(store, {"claim": True})
    assert await store.finish_with_results({job_id: DONE}) == []
    assert (await store.list_jobs(0, 10), queue.results()) == ([], {})


@on_both_stores
async def test_finishes_without_results_keep_nothing(queue: Queue) -> None:
    store = await keeping(queue)
    first, second = await queue.submit(store, {"claim": True}, {})
    assert await store.finish_jobs([first]) == []
    assert await store.cancel_job(second)
    assert queue.results() == {}


@on_both_stores
async def test_results_are_deleted_when_their_time_is_over(queue: Queue) -> None:
    store = await keeping(queue)
    early, late = await queue.submit(store, {"claim": True}, {"claim": True})
    await store.finish_with_results({early: DONE})
    queue.pass_time(DAY / 2)
    await store.finish_with_results({late: DONE})
    assert not await store.expire_results()
    assert queue.results() == {early: DONE, late: DONE}
    queue.pass_time(DAY / 2 + 1)
    assert not await store.expire_results()
    assert queue.results() == {late: DONE}


@on_both_stores
async def test_many_results_are_deleted_in_several_calls(queue: Queue) -> None:
    store = await keeping(queue)
    ids = await queue.submit(store, *({"claim": True} for _ in range(120)))
    await store.finish_with_results(dict.fromkeys(ids, DONE))
    queue.pass_time(DAY + 1)
    assert [await store.expire_results() for _ in range(3)] == [True, True, False]
    assert queue.results() == {}


@on_both_stores
async def test_results_that_another_deletes_at_this_moment_are_passed_over(queue: Queue) -> None:
    store = await keeping(queue)
    first, second = await queue.submit(store, {"claim": True}, {"claim": True})
    await store.finish_with_results({first: DONE, second: DONE})
    queue.pass_time(DAY + 1)
    if queue.dsn is None:
        return  # nothing waits for anything there
    with psycopg.connect(queue.dsn) as other:
        other.execute("delete from postgear.result where job_id = %s", [first])
        assert not await store.expire_results()
        other.rollback()
    assert queue.results() == {first: DONE}
