create or replace function postgear.standbys()
returns table (name text, state text, sync_state text, lag_bytes bigint, lag_seconds double precision)
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Return the standbys that stream from this primary: how far behind each is in writing to its disk, and whether commits wait for it.
--
-- All but the name is null where the owner of this function has not the rights of pg_monitor and the standby connects as
-- somebody else. On a standby: those that stream from it, without a lag.
-- Called by: servers (metrics), postgear doctor, postgear cluster.  Tables: none.
select application_name, state, sync_state,
    case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint end,
    extract(epoch from flush_lag)::double precision
from pg_stat_replication
order by 1
$$;
