create or replace function postgear.reap_leases()
returns table (lease bigint, name text, released integer)
language sql
as $$
-- End the leases of dead servers: not renewed for 1.5 s while nobody holds their advisory lock (the process or its
-- session is gone), or not renewed for lease_seconds (hung, or cut off). Releases jobs of leases that have no row, too:
-- what a server claimed in the moment it was reaped.
--
-- Renewal comes every second, so a killed server's jobs are free again within 1.5 s plus one call of this.
-- Called by: every server, twice a second.  Tables: server (reads, deletes), job (reads, updates).
with recursive holder (lease) as (
    (select job.lease from postgear.job where job.lease is not null order by job.lease limit 1)
    union all
    select (select job.lease from postgear.job where job.lease > holder.lease order by job.lease limit 1)
    from holder where holder.lease is not null
),
dead as materialized (
    select server.lease, server.name
    from postgear.server
    where renewed_at < clock_timestamp() - interval '1.5 seconds'
      and (renewed_at < clock_timestamp() - make_interval(secs => lease_seconds)
        or pg_try_advisory_xact_lock(postgear.lease_lock_class(), (server.lease % 2147483647)::integer))
    for update skip locked
),
ended as (
    select dead.lease, dead.name from dead
    union all
    select holder.lease, null from holder
    where holder.lease is not null and holder.lease not in (select server.lease from postgear.server)
)
select ended.lease, ended.name, postgear.end_lease(ended.lease) from ended
$$;
