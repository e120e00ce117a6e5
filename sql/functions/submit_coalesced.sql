create or replace function postgear.submit_coalesced(
    function_name bytea,
    key text,
    workload bytea,
    priority smallint default 1,
    run_at timestamptz default null
) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Queue a job in the caller's transaction unless one of the same function and key is queued or scheduled: that one gets
-- this workload instead, the higher of both priorities and the earlier time. Returns the job's id.
--
-- Unlike a unique the key does not hold while a job runs, so that no change is lost. Keys of submit_coalesced, uniques
-- and keys of create_trigger never meet. Waits for a transaction that has queued the same key and is not committed.
-- key: any text; null: queued by itself.  Raises 53400 (configuration_limit_exceeded) when the function's queue is full.
-- Called by: people's own triggers.  Tables: job (inserts, updates, reads), function (reads, inserts), server (reads).
declare
    target_id integer;
    job_limit integer;
    job_id bigint;
    is_new boolean;
begin
    if function_name is null or workload is null or priority is null then
        raise null_value_not_allowed using message = 'postgear: function, workload and priority must not be null';
    end if;
    if octet_length(function_name) = 0 or position(decode('00', 'hex') in function_name) > 0 then
        raise invalid_parameter_value using message = 'postgear: a function name must not be empty or contain NUL';
    end if;
    if priority not between 0 and 2 then
        raise invalid_parameter_value using
            message = format('postgear: priority %s is none of 0 (high), 1 (normal) and 2 (low)', priority);
    end if;
    -- As over the wire: what is past the year 9999 was given in milliseconds.
    if run_at is not null and (not isfinite(run_at) or run_at > to_timestamp(253402300799)) then
        raise datetime_field_overflow using message = format('postgear: a job cannot run at %s', run_at);
    end if;
    if octet_length(function_name) > 512 then
        raise string_data_right_truncation using
            message = format('postgear: a function name may have 512 bytes, this one has %s', octet_length(function_name));
    end if;
    target_id := postgear.function_id(function_name);
    insert into postgear.job as present (function_id, priority, run_at, unique_key, until_claimed, workload)
    values (
        target_id,
        submit_coalesced.priority,
        case when submit_coalesced.run_at > clock_timestamp() then submit_coalesced.run_at end,
        't'::bytea || sha512(convert_to('key:' || submit_coalesced.key, postgear.text_encoding())),
        submit_coalesced.key is not null,
        submit_coalesced.workload
    )
    on conflict (function_id, unique_key) where unique_key is not null
    do update set
        workload = excluded.workload,
        priority = least(present.priority, excluded.priority),
        run_at = case when excluded.run_at < present.run_at then excluded.run_at when excluded.run_at is not null then present.run_at end
    returning id, xmax = 0 into job_id, is_new;
    if is_new then
        select case submit_coalesced.priority when 0 then max_high when 1 then max_normal else max_low end into job_limit
        from postgear.function where id = target_id;
        -- The job itself is counted already, so the queue was full if it has more than the limit.
        if job_limit is not null and postgear.is_full(target_id, least(job_limit, 2147483646) + 1) then
            raise configuration_limit_exceeded using
                message = format('postgear: the queue of function "%s" is full', encode(function_name, 'escape')),
                hint = 'See max_high, max_normal and max_low in postgear.function.';
        end if;
    end if;
    perform postgear.wake_servers();
    return job_id;
end
$$;
