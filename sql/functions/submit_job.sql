create or replace function postgear.submit_job(
    function_name bytea,
    workload bytea,
    unique_key bytea default null,
    priority smallint default 1,
    run_at bigint default null,
    reducer bytea default null
) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
-- Add one job in the caller's transaction and return its id, or the id of the job it coalesced with.
--
-- unique_key: at most 64 bytes; null or empty never coalesces; '-' coalesces jobs of the same workload.
-- run_at: epoch seconds.  Raises 53400 (configuration_limit_exceeded) when the function's queue is full.
-- Called by: gman_do_background and its kin.  Tables: job (inserts), as submit_jobs and function_id.
declare
    coalescing_key bytea := case
        when unique_key = '-' then case when workload <> '' then '-'::bytea || sha512(workload) end
        else nullif(unique_key, '')
    end;
    target_id integer;
    job_limit integer;
    is_wanted boolean;
    job_id bigint;
begin
    if function_name is null or workload is null then
        raise null_value_not_allowed using
            message = 'postgear: function and workload must not be null';
    end if;
    if octet_length(function_name) not between 1 and 512 then
        raise string_data_right_truncation using
            message = format('postgear: a function name has 1 to 512 bytes, this one has %s', octet_length(function_name));
    end if;
    if octet_length(unique_key) > 64 then
        raise string_data_right_truncation using
            message = format('postgear: a unique may have 64 bytes, this one has %s', octet_length(unique_key));
    end if;
    if priority not between 0 and 2 then
        raise invalid_parameter_value using
            message = format('postgear: priority %s is none of 0 (high), 1 (normal) and 2 (low)', priority);
    end if;
    select id, case priority when 0 then max_high when 1 then max_normal else max_low end,
        exists (select from postgear.server where sleeping)
    into target_id, job_limit, is_wanted
    from postgear.function
    where name = function_name and not dropped;
    if not found then
        target_id := postgear.function_id(function_name);
        is_wanted := true;
    end if;
    if job_limit is null then
        -- The usual case, in a third of the time that the arrays below take: row-level triggers call this for every row.
        insert into postgear.job (function_id, priority, unique_key, workload, run_at, reducer)
        values (
            target_id,
            submit_job.priority,
            coalescing_key,
            submit_job.workload,
            case when submit_job.run_at > extract(epoch from now()) then to_timestamp(submit_job.run_at) end,
            submit_job.reducer
        )
        on conflict (function_id, unique_key) where unique_key is not null do nothing
        returning id into job_id;
        if job_id is not null then
            if is_wanted then
                perform postgear.wake_servers();
            end if;
            return job_id;
        end if;
    end if;
    job_id := (postgear.submit_jobs(
        null,
        array[target_id],
        array[priority],
        array[coalescing_key],
        array[workload],
        case when run_at is not null then array[run_at] end,
        case when reducer is not null then array[reducer] end
    ))[1];
    if job_id = 0 then
        raise configuration_limit_exceeded using
            message = format('postgear: the queue of function "%s" is full', encode(function_name, 'escape')),
            hint = 'See max_high, max_normal and max_low in postgear.function.';
    end if;
    return abs(job_id);
end
$$;
