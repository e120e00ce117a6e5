create or replace function postgear.import_jobs(
    digests bytea[],
    function_names bytea[],
    workloads bytea[],
    unique_keys bytea[],
    priorities smallint[],
    run_ats bigint[],
    deletes boolean,
    out added integer,
    out kept bytea[]
) returns record
language plpgsql
as $$
-- Queue those of the jobs whose digest is not in postgear.imported, and add it there.
--
-- deletes: whether the caller deletes the rows next.  added: how many were queued.  kept: digests recorded by a run that deleted
-- nothing, null: none; their rows must stay, for they may be jobs that were queued anew since.
-- Other elements as those of enqueue_jobs.  Raises 53400 (configuration_limit_exceeded) when some function's queue is full.
-- Called by: `postgear import-gearmand`.  Tables: imported (inserts), else as enqueue_jobs.
declare
    refused integer;
begin
    with added_now as (
        insert into postgear.imported (digest, deletes)
        select distinct digest, import_jobs.deletes from unnest(digests) as given (digest)
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
    if deletes then
        select array_agg(imported.digest) into kept
        from postgear.imported
        where imported.digest = any (digests) and not imported.deletes;
    end if;
end
$$;
