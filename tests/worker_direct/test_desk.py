"""The Desk by itself: what it asks the database for, and which job gets a slot."""

from __future__ import annotations

from collections.abc import Callable

from postgear.functions import Handler
from postgear.job import ClaimedJob, Ending, FunctionRow, Lane
from postgear.job_holder import TICK_SECONDS
from postgear.wire.packet import PacketType
from postgear.worker.desk import REVIEW_TICKS, WINDOW_MAX_JOBS, Desk
from postgear.worker.job import Job

HIGH, NORMAL, LOW = 0, 1, 2


class Slots:
    """Slots that are filled and emptied by hand."""

    def __init__(self, free: int, *names: str) -> None:
        self.free = free
        self.handlers = {name: Handler(lambda payload: payload, name) for name in names}
        self.jobs: list[Job] = []
        self.lost: list[Job] = []
        self.freed: Callable[[], None] = lambda: None  # as in a worker: whatever frees a slot lets the sources pull

    def reserve(self, wanted: int) -> int:
        count = min(wanted, self.free)
        self.free -= count
        return count

    def release(self, count: int) -> None:
        self.free += count
        self.freed()

    def assign(self, job: Job) -> None:
        self.jobs.append(job)

    def lose(self, job: Job) -> None:
        self.lost.append(job)

    def ready(self) -> None: ...

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None: ...


class Table:
    """A desk whose functions have the ids 1, 2, …; the jobs of the database are given to it by hand."""

    def __init__(self, free: int = 1, *names: str) -> None:
        self.slots = Slots(free, *(names or ("f",)))
        self.kicks = 0
        self.desk = Desk(self.slots, self, self._changed)  # type: ignore[arg-type]
        self.slots.freed = self.desk.pull
        self.resolve()

    def _changed(self) -> None:
        self.kicks += 1

    def resolve(self, *, keeps_results: bool = False) -> None:
        rows = [
            FunctionRow(name, number, (None, None, None), False, keeps_results=keeps_results)
            for number, name in enumerate(self.desk.functions, 1)
        ]
        self.desk.unresolved.clear()
        self.desk.resolved(rows)

    def claim(self, *jobs: tuple[int, int], poll: bool = True) -> list[Lane]:
        """Let the desk claim: jobs are id and priority, all of function 1. Returns what it asked for."""
        lanes = self.desk.demands(poll=poll)
        if lanes:
            self.desk.claimed(lanes, [ClaimedJob(job_id, 1, priority, 1, None, None, b"") for job_id, priority in jobs])
        return lanes

    def end(self, *ids: int) -> None:
        """End jobs in their slots."""
        for job_id in ids:
            job = next(job for job in self.slots.jobs if job.id == job_id)
            self.slots.jobs.remove(job)
            self.desk.end(job, is_completed=True, data=b"result")
            self.slots.release(1)

    @property
    def running(self) -> list[int]:
        return [job.id for job in self.slots.jobs]

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.desk.tick()


def test_it_asks_for_as_many_jobs_as_slots_are_free_and_reserves_them_meanwhile() -> None:
    table = Table(3)
    lanes = table.desk.demands(poll=True)
    assert [lane.priority for lane in lanes] == [HIGH, NORMAL, LOW]
    assert table.desk.claim_limit == 3
    assert table.slots.free == 0
    table.desk.claimed(lanes, [])
    assert table.slots.free == 3


def test_it_asks_for_nothing_while_slots_are_busy_and_knows_that_it_did_not_look() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    assert table.claim(poll=True) == []
    assert not table.desk.claim_wanted
    table.end(1)
    assert table.desk.claim_wanted
    assert len(table.claim(poll=False)) == 3


def test_what_was_found_empty_is_asked_for_again_with_the_next_poll_only() -> None:
    table = Table(1)
    assert len(table.claim()) == 3
    assert table.claim(poll=False) == []
    assert len(table.claim(poll=True)) == 3
    table.desk.reopen_backlogs()
    assert table.desk.claim_wanted
    assert len(table.claim(poll=False)) == 3


def test_a_lane_that_brought_all_it_was_asked_for_is_asked_again() -> None:
    table = Table(2)
    table.claim((1, NORMAL), (2, NORMAL))
    table.end(1, 2)
    assert table.desk.claim_wanted
    assert len(table.claim((3, LOW), poll=False)) == 3
    table.end(3)
    assert table.claim(poll=False) == []


def test_the_limit_is_shared_among_functions_that_have_jobs_and_another_comes_first_each_time() -> None:
    table = Table(4, "f", "g")
    firsts = set()
    for _ in range(2):
        table.desk.reopen_backlogs()
        lanes = table.claim(poll=False)
        assert {lane.wanted for lane in lanes} == {2}
        assert [lane.priority for lane in lanes] == [HIGH, HIGH, NORMAL, NORMAL, LOW, LOW]
        firsts.add(lanes[0].function_id)
    assert firsts == {1, 2}


def test_the_window_grows_with_what_slots_end() -> None:
    table = Table(4)
    table.claim(*((job_id, NORMAL) for job_id in range(1, 5)))
    table.end(1, 2, 3, 4)
    table.claim(*((job_id, NORMAL) for job_id in range(5, 17)))
    assert table.desk.claim_limit == 12
    assert table.running == [5, 6, 7, 8]
    table.end(5)
    assert table.running == [6, 7, 8, 9]


def test_the_window_has_a_ceiling() -> None:
    table = Table(WINDOW_MAX_JOBS * 2)
    table.claim()
    assert table.desk.claim_limit == WINDOW_MAX_JOBS


def test_held_jobs_get_slots_by_priority_then_in_the_order_of_claims() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, HIGH), (3, NORMAL), (4, LOW), (6, LOW))
    table.end(2)
    lanes = table.desk.demands(poll=True)
    assert [lane.priority for lane in lanes] == [HIGH, NORMAL]  # enough of the others is held
    table.desk.claimed(lanes, [ClaimedJob(5, 1, HIGH, 1, None, None, b"")])
    for job_id in (3, 5, 4, 6):
        assert table.running == [job_id]
        table.end(job_id)


def test_held_jobs_that_no_slot_takes_go_back_newest_first_as_if_never_given_out() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL), (4, LOW))
    table.tick(REVIEW_TICKS)
    assert table.desk.unused == [4]  # one job ended since the last review: so many are kept
    table.tick(REVIEW_TICKS)
    assert table.desk.unused == [4, 3]
    assert table.desk.held_ids() == [2]


def test_jobs_are_held_back_while_the_lease_is_in_doubt() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL))
    table.desk.suspended = True
    table.end(2)
    assert table.running == []
    assert table.desk.demands(poll=True) == []
    table.desk.suspended = False
    table.desk.reopen_backlogs()
    assert table.running == [3]


def test_a_worker_that_stood_still_gives_out_no_job() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL))
    table.desk.is_lease_in_doubt = lambda: True  # though no tick has come that would say so
    table.end(2)
    assert table.running == []
    table.desk.reopen_backlogs()
    table.claim((4, NORMAL))
    assert table.running == []


def test_a_lost_lease_takes_all_jobs_and_their_ends_change_nothing() -> None:
    table = Table(2)
    table.claim((1, NORMAL), (2, NORMAL))
    first = table.slots.jobs[0]
    table.end(2)
    table.desk.postponed[9] = 1.0
    table.desk.forget_lease()
    assert table.slots.lost == [first]
    table.desk.end(first, is_completed=True, data=b"")
    table.desk.put_back(first, 5.0)
    table.desk.report_progress(first, 1, 2)
    desk = table.desk
    assert (desk.finishes, desk.releases, desk.unused, desk.postponed, desk.progress) == ([], [], [], {}, {})
    assert not desk.holds(first)


def test_a_job_given_out_again_is_not_ended_by_its_first_delivery() -> None:
    table = Table(2)
    table.claim((1, NORMAL))
    first = table.slots.jobs.pop()
    table.desk.put_back(first, 0.0)
    assert table.desk.releases == [1]
    table.claim((1, NORMAL))
    table.desk.end(first, is_completed=True, data=b"")
    assert table.desk.finishes == []
    table.end(1)
    assert table.desk.finishes == [1]


def test_a_job_that_is_put_off_goes_back_for_later() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.desk.put_back(table.slots.jobs[0], 5.0)
    assert table.desk.postponed == {1: 5.0}
    assert table.desk.releases == []
    assert table.desk.held_ids() == []


def test_cancelled_jobs_are_dropped_where_they_are() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL), (4, NORMAL))
    running = table.slots.jobs[0]
    assert table.desk.cancel(b"", 3)
    assert table.desk.cancel(b"", 2)
    assert not table.desk.cancel(b"", 7)
    assert table.slots.lost == [running]
    assert table.desk.held_ids() == [4]


def test_only_lost_jobs_are_dropped_after_a_broken_connection() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL), (4, NORMAL))
    table.desk.drop_held([3, 8])
    assert table.desk.held_ids() == [2, 4]
    assert table.slots.lost == []


def test_a_failed_claim_gives_its_slots_back_and_is_made_again() -> None:
    table = Table(2)
    lanes = table.desk.demands(poll=True)
    table.desk.claim_failed(lanes)
    assert table.slots.free == 2
    assert table.desk.claim_wanted


def test_stopping_gives_held_jobs_back_and_what_a_claim_still_brings() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL))
    table.end(2)
    lanes = table.desk.demands(poll=True)
    table.desk.stop_taking()
    table.desk.claimed(lanes, [ClaimedJob(4, 1, HIGH, 1, None, None, b"")])
    assert sorted(table.desk.unused) == [4]
    assert table.running == [3]
    table.end(3)
    assert table.slots.free == 1
    assert not table.desk.has_workers
    assert table.desk.demands(poll=True) == []


def test_jobs_of_a_function_that_is_no_longer_done_go_back() -> None:
    table = Table(1, "f", "g")
    table.claim((1, NORMAL))
    table.end(1)
    table.claim((2, NORMAL), (3, NORMAL))
    lanes = table.desk.demands(poll=True)
    del table.slots.handlers["f"]
    table.desk.abilities_changed()
    assert table.desk.unused == [3]
    table.desk.claimed(lanes, [ClaimedJob(4, 1, NORMAL, 1, None, None, b"")])
    assert table.desk.unused == [3, 4]
    assert table.running == [2]
    assert {lane.function_id for lane in table.claim()} <= {2}


def test_the_loops_are_told_once_of_ends_that_gather() -> None:
    table = Table(3)
    table.claim((1, NORMAL), (2, NORMAL), (3, NORMAL))
    table.desk.claim_wanted = True
    before = table.kicks
    table.end(1, 2, 3)
    assert table.kicks == before + 1
    assert table.desk.finishes == [1, 2, 3]


def test_ticks_forget_a_rate_that_is_over() -> None:
    table = Table(1)
    table.claim((1, NORMAL))
    table.end(1)
    table.tick()
    table.claim()
    assert table.desk.claim_limit is not None
    assert table.desk.claim_limit > 1
    table.tick(int(3 / TICK_SECONDS))
    table.claim()
    assert table.desk.claim_limit == 1


def test_how_a_job_has_ended_goes_with_it_where_its_function_keeps_that() -> None:
    table = Table(4, "f")
    table.resolve(keeps_results=True)
    table.claim((1, NORMAL), (2, NORMAL), (3, NORMAL), (4, NORMAL))
    first, second, third, fourth = table.slots.jobs
    kicks = table.kicks
    table.desk.end(first, is_completed=True, data=b"done")
    assert table.kicks == kicks + 1
    table.desk.end(second, is_completed=False, data=None)
    assert (table.desk.finishes, table.desk.results) == ([], {1: Ending(True, b"done"), 2: Ending(False, None)})
    table.slots.handlers = {}
    table.desk.abilities_changed()
    table.desk.end(third, is_completed=True, data=b"of a function that is gone")
    assert table.desk.results[3] == Ending(True, b"of a function that is gone")
    table.desk.cancel(b"", 4)
    table.desk.end(fourth, is_completed=True, data=b"late")
    assert 4 not in table.desk.results
    table.desk.forget_lease()
    assert table.desk.results == {}


def test_a_function_that_keeps_results_no_more_is_as_any_other() -> None:
    table = Table(2, "f")
    table.resolve(keeps_results=True)
    table.resolve()
    table.claim((1, NORMAL))
    table.end(1)
    assert (table.desk.finishes, table.desk.results) == ([1], {})
