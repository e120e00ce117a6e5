create or replace function postgear.live_servers() returns setof text
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Return the addresses (host:port) of this queue's running servers, the longest running first.
--
-- A server that listens on all addresses does not say by which it is reached; it is that from which its session that holds
-- the lease's advisory lock came to this database, or with a Unix socket this host.
-- Called by: gman_do and its kin, when no servers are set.  Tables: server (reads).
select case
    when starts_with(listening, '0.0.0.0:') or starts_with(listening, '[::]:') then
        case family(client_addr) when 4 then host(client_addr) when 6 then '[' || host(client_addr) || ']' else '127.0.0.1' end
        || substring(listening from ':[0-9]+$')
    else listening
end
from postgear.server
cross join lateral unnest(string_to_array(address, ',')) as listening
left join pg_locks on locktype = 'advisory' and objsubid = 2
    and database = (select oid from pg_database where datname = current_database())
    and classid = postgear.lease_lock_class()::oid and objid = (lease % 2147483647)::integer::oid
left join pg_stat_activity on pg_stat_activity.pid = pg_locks.pid
where kind = 'server' and renewed_at > clock_timestamp() - make_interval(secs => least(lease_seconds, 5))
order by lease
$$;
