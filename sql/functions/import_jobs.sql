create or replace function postgear.import_jobs(
    digests bytea[], function_names bytea[], workloads bytea[], unique_keys bytea[], priorities smallint[], run_ats bigint[]
) returns integer
language plpgsql
as $$
-- Queue those of the jobs whose digest is not in postgear.imported, and add it there; return their number.
--
-- Elements as those of enqueue_jobs.  Raises 53400 (configuration_limit_exceeded) when some function's queue is full.
-- Called by: `postgear import-gearmand`.  Tables: imported (inserts), else as enqueue_jobs.
declare
    refused integer;
    added integer;
begin
    with added_now as (
        insert into postgear.imported (digest)
        select distinct digest from unnest(digests) as given (digest)
        on conflict (digest) do nothing
        returning digest
    )
    select array_agg(name order by place), array_agg(workload order by place), array_agg(key order by place),
        array_agg(priority order by place), array_agg(run_at order by place), count(*)
    into function_names, workloads, unique_keys, priorities, run_ats, added
    from unnest(digests, function_names, workloads, unique_keys, priorities, run_ats) with ordinality
        as given (digest, name, workload, key, priority, run_at, place)
    join added_now using (digest);
    if added > 0 then
        select queued.refused into refused
        from postgear.enqueue_jobs(function_names, workloads, unique_keys, priorities, run_ats) as queued;
        if refused is not null then
            raise configuration_limit_exceeded using
                message = format('postgear: the queue of function "%s" is full', encode(function_names[refused], 'escape'));
        end if;
    end if;
    return added;
end
$$;
