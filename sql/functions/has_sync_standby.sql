create or replace function postgear.has_sync_standby() returns boolean
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Say whether commits of this session wait for a synchronous standby, and one is connected.
--
-- The state of a standby is seen where the owner of this function has the rights of pg_monitor; elsewhere it is taken to be right.
-- Called by: servers with require_sync, postgear doctor.  Tables: none.
select current_setting('synchronous_standby_names') <> ''
    and current_setting('synchronous_commit') not in ('off', 'local')
    and exists (
        select from pg_stat_replication
        where sync_state is null or (sync_state in ('sync', 'quorum') and state = 'streaming')
    )
$$;
