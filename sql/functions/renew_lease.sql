create or replace function postgear.renew_lease(
    holder bigint, is_sleeping boolean, duties_seconds double precision default null
) returns boolean
language plpgsql
as $$
-- Renew a lease and say whether the server sleeps; false: the lease was reaped, what it held belongs to others.
-- Takes the lease's advisory lock again when this is a new session.
--
-- duties_seconds: how long ago the holder had done all that each does for all; null: it has not, or does not tell.
-- Called by: servers, every second, on the session that keeps the lease.  Tables: server (updates).
begin
    if not exists (
        select from pg_locks
        where locktype = 'advisory' and pid = pg_backend_pid() and granted
          and classid = postgear.lease_lock_class()::oid and objid = (holder % 2147483647)::integer::oid and objsubid = 2
    ) then
        -- The lost session may still stand in the way; then the next renewal takes the lock.
        perform pg_try_advisory_lock(postgear.lease_lock_class(), (holder % 2147483647)::integer);
    end if;
    update postgear.server
    set renewed_at = clock_timestamp(), sleeping = is_sleeping,
        duties_at = coalesce(clock_timestamp() - make_interval(secs => duties_seconds), duties_at)
    where lease = holder;
    return found;
end
$$;
