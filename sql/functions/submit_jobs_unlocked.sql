create or replace function postgear.submit_jobs_unlocked(
    holder bigint,
    function_ids integer[],
    priorities smallint[],
    unique_keys bytea[],
    workloads bytea[],
    run_ats bigint[],
    reducers bytea[],
    claims boolean[],
    batch_number bigint,
    commit_level text
) returns bigint[]
language plpgsql
as $$
-- Do what submit_jobs does, but add no job whose function and unique key another transaction has added and not committed yet,
-- for to coalesce with it would mean to wait for its end. The number of such a job is the least bigint, -2^63.
--
-- Slower than submit_jobs, by a statement for each job with a key. Waits for locks of whole tables as that does.
-- Called by: servers, after submit_jobs has waited for a lock until lock_timeout.  Tables: as submit_jobs.
<<this>>
declare
    ids bigint[] := '{}';
    first integer := 1;
    last integer;
begin
    if commit_level is not null then
        perform set_config('synchronous_commit', commit_level, true);
    end if;
    -- From here on nothing but rows is waited for.
    lock table postgear.job, postgear.batch in row exclusive mode;
    lock table postgear.function, postgear.server in access share mode;
    perform set_config('lock_timeout', '20ms', true);
    while first <= cardinality(function_ids) loop
        last := first;
        -- Those without a key wait for nobody, and go together.
        while unique_keys[first] is null and last < cardinality(function_ids) and unique_keys[last + 1] is null loop
            last := last + 1;
        end loop;
        begin
            ids := ids || postgear.submit_jobs(
                holder, function_ids[first:last], priorities[first:last], unique_keys[first:last], workloads[first:last],
                run_ats[first:last], reducers[first:last], claims[first:last]
            );
        exception when lock_not_available then
            ids := ids || array_fill('-9223372036854775808'::bigint, array[last - first + 1]);
        end;
        first := last + 1;
    end loop;
    update postgear.batch set number = batch_number, ids = this.ids, updated_at = now()
    where lease = holder and number < batch_number;
    if not found then
        raise object_not_in_prerequisite_state using
            message = format('postgear: batch %s of lease %s is over', batch_number, holder);
    end if;
    return ids;
end
$$;
