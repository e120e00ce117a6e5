create or replace function postgear.queue_job(
    function_name bytea,
    workload bytea,
    unique_key bytea default null,
    priority smallint default 1,
    run_at timestamptz default null
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Add one job in the caller's transaction and return its handle, or that of the job it coalesced with.
--
-- unique_key: at most 64 bytes; null or empty never coalesces; '-' coalesces jobs of the same workload.
-- run_at: not before; null or past: at once.  Raises what submit_job raises.
-- Called by: gman_do_background and its kin.  Tables: function, server, queue (reads), job (inserts); else as submit_job.
--
-- The usual job takes one statement: three of them cost a row trigger half as much again. No row comes back for a function
-- that is new or has limits, and for a key that is there already; submit_job knows what to do with those.
#variable_conflict use_column
declare
    handle text;
    is_wanted boolean;
begin
    -- As over the wire: what is past the year 9999 was given in milliseconds.
    if run_at is not null and (not isfinite(run_at) or run_at > to_timestamp(253402300799)) then
        raise datetime_field_overflow using message = format('postgear: a job cannot run at %s', run_at);
    end if;
    if queue_job.priority not between 0 and 2 or queue_job.workload is null then
        null;  -- submit_job says what is wrong
    elsif queue_job.unique_key is null then
        insert into postgear.job (function_id, priority, workload, run_at)
        select id, queue_job.priority, queue_job.workload, case when queue_job.run_at > now() then queue_job.run_at end
        from postgear.function
        where name = function_name and not dropped and max_high is null and max_normal is null and max_low is null
        returning
            'H:' || (select name from postgear.queue) || ':' || id,
            exists (select from postgear.server where sleeping)
        into handle, is_wanted;
    elsif queue_job.unique_key <> '-' and octet_length(queue_job.unique_key) between 1 and 64
        and position(decode('00', 'hex') in queue_job.unique_key) = 0
    then
        insert into postgear.job (function_id, priority, unique_key, workload, run_at)
        select id, queue_job.priority, queue_job.unique_key, queue_job.workload,
            case when queue_job.run_at > now() then queue_job.run_at end
        from postgear.function
        where name = function_name and not dropped and max_high is null and max_normal is null and max_low is null
        on conflict (function_id, unique_key) where unique_key is not null do nothing
        returning
            'H:' || (select name from postgear.queue) || ':' || id,
            exists (select from postgear.server where sleeping)
        into handle, is_wanted;
    end if;
    if is_wanted then
        perform postgear.wake_servers();
    end if;
    if handle is null then
        handle := postgear.handle(postgear.submit_job(
            function_name, queue_job.workload, queue_job.unique_key, queue_job.priority,
            ceil(extract(epoch from queue_job.run_at))::bigint
        ));
    end if;
    return handle;
end
$$;
