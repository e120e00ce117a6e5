"""The pure part of `postgear standby`: whose commits wait for whom, and when a replica may be promoted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postgear.standby.decision import Facts, Hearing, Rules, Verdict, Witnessed, decide, prospect
from postgear.standby.pages import Report, metrics, unready
from postgear.standby.state import Role
from postgear.standby.synchrony import Sighting, StandbyNames, Synchrony, parse_names

RULES = Rules(auto_promote=True, loss_seconds=4, trust_seconds=60)
LOST = Facts(
    now=1000.0,
    heard_at=995.0,
    is_demoted=False,
    is_replica_up=True,
    is_in_recovery=True,
    is_detached=False,
    is_confirmed=True,
    confirmed_at=995.0,
    confirmed_lsn=500,
    replayed_lsn=500,
    witnesses=(),
)
SEEN = Sighting(
    is_in_recovery=False,
    system_identifier="7",
    timeline=1,
    standby_names='"b"',
    synchronous_commit="on",
    settings_loaded="noon",
    insert_lsn=100,
    senders=1,
    state="streaming",
    sync_state="sync",
    flush_lsn=100,
    replay_lsn=90,
)
AWAY = replace(SEEN, senders=0, state=None, sync_state=None, flush_lsn=0, replay_lsn=0)
UNREACHABLE, REACHABLE, REACHES_DATABASE = Witnessed


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", StandbyNames(0, ())),
        ("b", StandbyNames(1, ("b",))),
        ('"b"', StandbyNames(1, ("b",))),
        ("B, c", StandbyNames(1, ("b", "c"))),
        ("2 (b, c)", StandbyNames(2, ("b", "c"))),
        ("FIRST 1 (b,c)", StandbyNames(1, ("b", "c"))),
        ('any 2 (b, "the ""c""", d) ', StandbyNames(2, ("b", 'the "c"', "d"))),
        ("first", StandbyNames(1, ("first",))),
        ("*", StandbyNames(1, ("*",))),
        ('"*"', StandbyNames(1, ("*",))),
    ],
)
def test_synchronous_standby_names_are_read_as_postgresql_reads_them(text: str, read: StandbyNames) -> None:
    assert parse_names(text) == read


@pytest.mark.parametrize("text", ["b,", "b c", "x (b)", "2 (b", "(", '"b', "ANY 1 b", ","])
def test_what_postgresql_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_names(text)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("b", True),
        ('"B"', True),
        ("FIRST 1 (b)", True),
        ("ANY 1 (b)", True),
        ("2 (b, c)", True),
        ("ANY 2 (c, b)", True),
        ("", False),
        ("c", False),
        ("b, c", False),  # c takes its place when it is cut off
        ("FIRST 1 (b, c)", False),
        ("ANY 1 (b, c)", False),
        ("*", False),  # anybody takes its place
        ("b (", False),
    ],
)
def test_only_settings_that_leave_no_commit_without_the_standby_count(text: str, needs: bool) -> None:
    assert replace(SEEN, standby_names=text).demands("b") is needs


@pytest.mark.parametrize(
    ("level", "waits"), [("on", True), ("remote_apply", True), ("remote_write", True), ("local", False), ("off", False)]
)
def test_commits_must_wait_for_what_the_names_name(level: str, waits: bool) -> None:
    assert replace(SEEN, synchronous_commit=level).demands("b") is waits


def demanded() -> Synchrony:
    """Where the primary's settings are in force."""
    synchrony = Synchrony("b")
    synchrony.saw(replace(SEEN, flush_lsn=0), 0)
    synchrony.in_force("noon")
    return synchrony


def confirmed() -> Synchrony:
    synchrony = demanded()
    synchrony.saw(SEEN, 1)
    synchrony.saw(SEEN, 2)
    assert synchrony.is_confirmed
    return synchrony


def test_the_first_answer_confirms_nothing() -> None:
    synchrony = demanded()
    synchrony.saw(SEEN, 1)
    assert not synchrony.is_confirmed


def test_settings_that_the_checkpointer_may_not_have_read_confirm_nothing() -> None:
    synchrony = Synchrony("b")
    for now in range(3):
        synchrony.saw(SEEN, now)
    assert (synchrony.is_confirmed, synchrony.awaited) == (False, "noon")
    synchrony.in_force("noon")
    synchrony.saw(replace(SEEN, insert_lsn=120), 3)
    assert (synchrony.is_confirmed, synchrony.awaited) == (False, "")
    synchrony.saw(replace(SEEN, insert_lsn=140, flush_lsn=119), 4)
    assert not synchrony.is_confirmed  # what had been committed by then may not have waited
    synchrony.saw(replace(SEEN, insert_lsn=140, flush_lsn=120), 5)
    assert synchrony.is_confirmed
    for now in range(6, 9):
        synchrony.saw(replace(SEEN, settings_loaded="one o'clock", insert_lsn=150, flush_lsn=150), now)
    assert (synchrony.is_confirmed, synchrony.awaited) == (False, "one o'clock")


def test_no_checkpoint_is_wanted_where_commits_need_not_wait() -> None:
    synchrony = Synchrony("b")
    synchrony.saw(replace(SEEN, standby_names=""), 1)
    assert synchrony.awaited == ""


def test_commits_from_before_the_demand_must_be_here_first() -> None:
    synchrony = demanded()
    synchrony.saw(replace(SEEN, insert_lsn=100, flush_lsn=40), 1)
    synchrony.saw(replace(SEEN, insert_lsn=120, flush_lsn=99), 2)
    assert not synchrony.is_confirmed
    synchrony.saw(replace(SEEN, insert_lsn=140, flush_lsn=100), 3)
    assert synchrony.is_confirmed
    assert (synchrony.confirmed_at, synchrony.replayed_lsn) == (3, 90)


def test_a_primary_that_still_waits_for_us_confirms_it_while_we_are_away() -> None:
    synchrony = confirmed()
    synchrony.saw(AWAY, 9)
    assert (synchrony.is_confirmed, synchrony.confirmed_at, synchrony.replayed_lsn) == (True, 9, 90)


@pytest.mark.parametrize(
    "change",
    [
        {"standby_names": ""},
        {"synchronous_commit": "local"},
        {"is_in_recovery": True},
        {"senders": 2},  # another of our name may have got the commit
        {"settings_loaded": "one o'clock"},  # in between they may have been others
    ],
)
def test_a_demand_that_ends_ends_the_confirmation(change: dict[str, object]) -> None:
    synchrony = confirmed()
    synchrony.saw(replace(SEEN, **change), 9)  # type: ignore[arg-type]
    assert not synchrony.is_confirmed


def test_since_when_it_is_confirmed_is_known_until_that_ends() -> None:
    synchrony = confirmed()
    for now in (3, 4):
        synchrony.saw(SEEN, now)
    assert (synchrony.confirmed_since, synchrony.confirmed_at) == (2, 4)
    synchrony.saw(replace(SEEN, standby_names=""), 5)
    for now in (6, 7, 8):
        synchrony.saw(SEEN, now)
    assert synchrony.confirmed_since == 7
    synchrony.remembered(3, 90)
    assert synchrony.confirmed_since == 3


def test_a_standby_that_was_away_when_the_demand_came_back_is_not_confirmed() -> None:
    synchrony = confirmed()
    synchrony.saw(replace(AWAY, standby_names="", settings_loaded="1"), 3)
    synchrony.saw(replace(AWAY, settings_loaded="2"), 4)
    synchrony.in_force("2")
    synchrony.saw(replace(AWAY, settings_loaded="2"), 5)
    assert not synchrony.is_confirmed


def test_a_potential_synchronous_standby_is_none() -> None:
    synchrony = demanded()
    for now in range(3):
        synchrony.saw(replace(SEEN, sync_state="potential"), now)
    assert not synchrony.is_confirmed


def test_a_synchronous_replica_takes_over_from_a_lost_primary() -> None:
    assert decide(LOST, RULES) is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"heard_at": 999.0}, Verdict.HEARD),
        ({"heard_at": 997.0}, Verdict.SILENT),
        ({"is_in_recovery": False}, Verdict.ALREADY_PROMOTED),
        ({"is_in_recovery": False, "heard_at": 999.0}, Verdict.ALREADY_PROMOTED),
        ({"is_demoted": True}, Verdict.DEMOTED),
        ({"is_replica_up": False}, Verdict.REPLICA_AWAY),
        ({"is_replica_up": False, "is_in_recovery": False}, Verdict.REPLICA_AWAY),
        ({"is_detached": True}, Verdict.DETACHED),
        ({"is_confirmed": False}, Verdict.NOT_SYNCHRONOUS),
        ({"confirmed_at": 939.0}, Verdict.STALE),
        ({"confirmed_at": float("-inf")}, Verdict.STALE),  # of another boot
        ({"confirmed_at": 1001.0}, Verdict.STALE),
        ({"replayed_lsn": 499}, Verdict.BEHIND),
        ({"witnesses": (UNREACHABLE,)}, Verdict.ISOLATED),
        ({"witnesses": (UNREACHABLE, UNREACHABLE)}, Verdict.ISOLATED),
        ({"witnesses": (UNREACHABLE, REACHES_DATABASE)}, Verdict.WITNESSED),
        ({"witnesses": (REACHABLE, REACHES_DATABASE)}, Verdict.WITNESSED),
        ({"witnesses": (UNREACHABLE, REACHABLE)}, Verdict.PROMOTE),
    ],
)
def test_each_condition_alone_keeps_it_from_that(change: dict[str, object], verdict: Verdict) -> None:
    assert decide(replace(LOST, **change), RULES) is verdict  # type: ignore[arg-type]


def test_unasked_it_only_says_that_it_could() -> None:
    rules = replace(RULES, auto_promote=False)
    assert decide(LOST, rules) is Verdict.NOT_ASKED
    assert decide(replace(LOST, is_confirmed=False), rules) is Verdict.NOT_SYNCHRONOUS


def test_a_process_that_was_stopped_itself_listens_anew() -> None:
    hearing = Hearing(0.0)
    for tenths in range(1, 11):
        hearing.tick(tenths / 10)
    assert hearing.heard_at == 0.0
    hearing.tick(30.0)
    assert hearing.heard_at == 30.0
    hearing.heard(31.0)
    hearing.heard(29.0)
    assert hearing.heard_at == 31.0


HEARD = replace(LOST, heard_at=999.9, confirmed_at=999.9)
REPORT = Report(
    name="b",
    role=Role.REPLICA,
    is_stopping=False,
    is_serving=False,
    is_auto_promote=True,
    facts=HEARD,
    verdict=Verdict.HEARD,
    prospect=Verdict.PROMOTE,
    confirmed_since=940.0,
    is_streaming=True,
    lag_bytes=7,
)


@pytest.mark.parametrize(
    ("change", "said", "verdict"),
    [
        ({}, (), Verdict.PROMOTE),
        ({}, (REACHES_DATABASE,), Verdict.PROMOTE),  # by way of the primary
        ({}, (UNREACHABLE, REACHABLE), Verdict.PROMOTE),
        ({}, (UNREACHABLE,), Verdict.ISOLATED),
        ({"is_confirmed": False}, (), Verdict.NOT_SYNCHRONOUS),
        ({"is_detached": True}, (), Verdict.DETACHED),
        ({"is_replica_up": False}, (), Verdict.REPLICA_AWAY),
        ({"is_demoted": True}, (), Verdict.DEMOTED),
        ({"replayed_lsn": 499}, (), Verdict.BEHIND),
        # It is lost already: what the witnesses say of this silence counts.
        ({"heard_at": 995.0, "witnesses": (UNREACHABLE,)}, (REACHABLE,), Verdict.ISOLATED),
        ({"heard_at": 995.0, "witnesses": (REACHES_DATABASE,)}, (REACHES_DATABASE,), Verdict.WITNESSED),
    ],
)
def test_what_would_be_done_is_known_while_the_primary_is_heard(
    change: dict[str, object], said: tuple[Witnessed, ...], verdict: Verdict
) -> None:
    facts = replace(HEARD, **change)  # type: ignore[arg-type]
    assert prospect(facts, RULES, said) is verdict


@pytest.mark.parametrize(
    ("change", "why_not"),
    [
        ({}, ""),
        ({"is_stopping": True}, "stopping"),
        (
            {"prospect": Verdict.NOT_ASKED},
            "it would not take over; the log would say: primary lost, this replica may be promoted",
        ),
        ({"role": Role.PROMOTING}, "promoting"),
        ({"role": Role.PROMOTED}, "promoted, but the server does not run"),
        ({"role": Role.PROMOTED, "is_serving": True}, ""),
        ({"role": Role.PROMOTED, "is_serving": True, "is_stopping": True}, "stopping"),
    ],
)
def test_a_standby_is_ready_if_it_would_take_over_or_serves(change: dict[str, object], why_not: str) -> None:
    assert unready(replace(REPORT, **change)) == why_not  # type: ignore[arg-type]


def samples(report: Report) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in metrics(report).splitlines() if not line.startswith("#")]
    return {name.removeprefix("postgear_standby_"): float(value) for name, _, value in lines}


def test_the_numbers_of_a_standby() -> None:
    found = samples(REPORT)
    assert [name for name in found if name.startswith("role") and found[name]] == ['role{role="replica"}']
    assert [name for name in found if name.startswith("verdict") and found[name]] == ['verdict{verdict="heard"}']
    assert {name: round(value, 1) for name, value in found.items() if "{" not in name} == {
        "ready": 1,
        "auto_promote": 1,
        "synchronous": 1,
        "synchronous_seconds": 60,
        "confirmed_seconds": 0.1,
        "primary_silent_seconds": 0.1,
        "streaming": 1,
        "replay_lag_bytes": 7,
        "detached": 0,
    }


def test_what_is_not_known_is_no_number() -> None:
    before = {"synchronous_seconds", "confirmed_seconds", "replay_lag_bytes"}
    of_another_boot = replace(REPORT, confirmed_since=float("-inf"), lag_bytes=None)
    assert not before & samples(of_another_boot).keys()
    assert "synchronous_seconds" not in samples(replace(REPORT, facts=replace(HEARD, is_confirmed=False)))
    promoted = samples(replace(REPORT, role=Role.PROMOTED, is_serving=True))
    assert {name for name in promoted if "{" not in name} == {"ready", "auto_promote", "server_running"}
