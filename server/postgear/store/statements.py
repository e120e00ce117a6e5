"""The statements that the store in PostgreSQL prepares, by the connection they go over."""

from __future__ import annotations

from typing import Final

SUBMIT: Final = {
    b"submit_jobs": b"select postgear.submit_jobs($1::bigint, $2::integer[], $3::smallint[], $4::bytea[], $5::bytea[],"
    b" $6::bigint[], $7::bytea[], $8::boolean[], $9::bigint, $10::text)",
    b"submit_jobs_unlocked": b"select postgear.submit_jobs_unlocked($1::bigint, $2::integer[], $3::smallint[], $4::bytea[],"
    b" $5::bytea[], $6::bigint[], $7::bytea[], $8::boolean[], $9::bigint, $10::text)",
    b"settle_batch": b"select postgear.settle_batch($1::bigint, $2::bigint)",
    b"has_sync_standby": b"select postgear.has_sync_standby()",
}
RESOLVE: Final = {
    # Not a column of learn_functions: servers of the release before have prepared it, and its columns must stay as they are.
    b"drop_function": b"select postgear.drop_function($1::bytea)",
    b"learn_functions": b"select learnt.*, function.keep_results is not null from postgear.learn_functions($1::bytea[]) as learnt"
    b" left join postgear.function on function.id = learnt.id",
}
FINISH: Final = {
    b"finish_jobs": b"select postgear.finish_jobs($1::bigint, $2::bigint[])",
    b"finish_with_results": b"select postgear.finish_with_results($1::bigint, $2::bigint[], $3::boolean[], $4::bytea[])",
    b"release_jobs": b"select postgear.release_jobs($1::bigint, $2::bigint[], $3::boolean)",
    b"release_others": b"select postgear.release_others($1::bigint, $2::bigint[])",
    b"postpone_jobs": b"select postgear.postpone_jobs($1::bigint, $2::bigint[], $3::float8[])",
    b"record_attempts": b"select postgear.record_attempts($1::bigint, $2::bigint[], $3::smallint[])",
    b"record_progress": b"select postgear.record_progress($1::bigint, $2::bigint[], $3::bigint[], $4::bigint[])",
}
CLAIM: Final = {
    b"claim_jobs": b"select * from postgear.claim_jobs($1::bigint, $2::integer[], $3::smallint[], $4::integer[], $5::bigint,"
    b" $6::integer)",
    b"claim_unique": b"select * from postgear.claim_unique($1::bigint, $2::integer, $3::bytea)",
    b"promote_jobs": b"select postgear.promote_jobs()",
}
ASK: Final = {
    b"has_sync_standby": b"select postgear.has_sync_standby()",
    b"standbys": b"select name, state, sync_state, lag_bytes, lag_seconds from postgear.standbys()",
    b"relays": b"select outbox, state = 'working', rows_waiting, oldest_seconds, rows_per_second, rows_moved, rows_failed"
    b" from postgear.relays order by outbox",
    # The setting holds until after the commit, whose lock it is for.
    b"notify": b"select set_config('lock_timeout', $2::text, true), set_config('synchronous_commit', 'off', true),"
    b" pg_notify('postgear', $1::text)",
    b"cancel_job": b"select postgear.cancel_job($1::bigint)",
    b"is_full": b"select postgear.is_full($1::integer, $2::integer)",
    b"job_status": b"select * from postgear.job_status($1::bigint, $2::bytea)",
    b"count_jobs": b"select * from postgear.count_jobs($1::bigint)",
    b"list_jobs": b"select * from postgear.list_jobs($1::bigint, $2::integer)",
    b"set_limits": b"select postgear.set_limits($1::bytea, $2::integer, $3::integer, $4::integer)",
    b"set_functions": b"select postgear.set_functions($1::bigint, $2::bytea[])",
    b"reap_leases": b"select lease, released from postgear.reap_leases()",
    b"expire_results": b"select postgear.expire_results()",
}
LEASE: Final = {
    b"register_server": b"select * from postgear.register_server($1::text, $2::text, $3::integer, $4::text, $5::float8)",
    b"register_worker": b"select * from postgear.register_worker($1::text, $2::text, $3::integer, $4::text, $5::float8,"
    b" $6::bytea[])",
    b"same_named": b"select server.address, server.pid::text from postgear.server"
    b" where server.name = $1::text and server.lease <> $2::bigint and server.kind = 'server'"
    b" and exists (select from pg_locks where locktype = 'advisory' and granted"
    b" and classid = postgear.lease_lock_class()::oid and objid = (server.lease % 2147483647)::integer::oid and objsubid = 2)",
    b"misses_others": b"select exists (select from postgear.server where renewed_at <= greatest(pg_postmaster_start_time(),"
    b" pg_last_xact_replay_timestamp()))",
    b"owner_of": b"select name = $2::text and pid = $3::integer from postgear.server where lease = $1::bigint",
    b"renew_lease": b"select postgear.renew_lease($1::bigint, $2::boolean, $3::float8)",
    b"end_lease": b"select postgear.end_lease($1::bigint)",
}
CLUSTER: Final = (
    b"select system_identifier::text, left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_postmaster_start_time()::text"
    b" from pg_control_system()"
)
