"""A server of the queue as a witness: it reaches the database only as long as the database answers it."""

from __future__ import annotations

import asyncio

from postgear.standby.decision import Witnessed
from postgear.standby.paths import WitnessPath
from tests.failover.conftest import Pair
from tests.server.load import query, wait_for


def test_a_witness_does_not_answer_from_memory_for_a_database_that_is_gone(pair: Pair) -> None:
    # So slow that the server shows its result again for ten seconds.
    arguments, result = query(
        pair.a.dsn,
        "select pg_get_function_arguments(oid), pg_get_function_result(oid) from pg_proc"
        " where oid = 'postgear.count_jobs(bigint)'::regprocedure",
    )[0]
    query(pair.a.dsn, "alter function postgear.count_jobs(bigint) rename to count_fast")
    query(
        pair.a.dsn,
        f"create function postgear.count_jobs({arguments}) returns {result} language sql as"
        " 'select pg_sleep(0.5); select * from postgear.count_fast($1)'",
    )
    server = pair.serve()
    path = WitnessPath(server.host, server.port)

    def says() -> Witnessed:
        return asyncio.run(path.ask())

    wait_for(lambda: says() is Witnessed.REACHES_DATABASE, "it does")
    pair.a.freeze()
    assert says() is Witnessed.REACHABLE
    pair.a.thaw()
    wait_for(lambda: says() is Witnessed.REACHES_DATABASE, "it does again")
    pair.a.kill()
    assert says() is Witnessed.REACHABLE
