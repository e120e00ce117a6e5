create or replace function postgear.submit_job(
    function_name bytea,
    workload bytea,
    unique_key bytea default null,
    priority smallint default 1,
    run_at bigint default null,
    reducer bytea default null
) returns bigint
language plpgsql
as $$
-- Add one job in the caller's transaction and return its id, or the id of the job it coalesced with.
--
-- unique_key: at most 64 bytes; null or empty never coalesces; '-' coalesces jobs of the same workload.
-- run_at: epoch seconds.  Raises 53400 (configuration_limit_exceeded) when the function's queue is full.
-- Called by: queue_job, where its own way is not enough.  Tables: as submit_jobs and function_id.
declare
    coalescing_key bytea := case
        when unique_key = '-' then case when workload <> '' then '-'::bytea || sha512(workload) end
        else nullif(unique_key, '')
    end;
    job_id bigint;
begin
    if function_name is null or workload is null then
        raise null_value_not_allowed using
            message = 'postgear: function and workload must not be null';
    end if;
    if octet_length(function_name) = 0 or position(decode('00', 'hex') in function_name) > 0 or position(decode('00', 'hex') in unique_key) > 0 then
        raise invalid_parameter_value using
            message = 'postgear: a function name must not be empty, and neither it nor a unique may contain NUL';
    end if;
    if octet_length(function_name) > 512 then
        raise string_data_right_truncation using
            message = format('postgear: a function name may have 512 bytes, this one has %s', octet_length(function_name));
    end if;
    if octet_length(unique_key) > 64 then
        raise string_data_right_truncation using
            message = format('postgear: a unique may have 64 bytes, this one has %s', octet_length(unique_key));
    end if;
    if priority not between 0 and 2 then
        raise invalid_parameter_value using
            message = format('postgear: priority %s is none of 0 (high), 1 (normal) and 2 (low)', priority);
    end if;
    job_id := (postgear.submit_jobs(
        null,
        array[postgear.function_id(function_name)],
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
