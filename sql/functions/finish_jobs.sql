create or replace function postgear.finish_jobs(holder bigint, ids bigint[]) returns bigint[]
language plpgsql
as $$
-- Delete finished jobs that holder holds and return the ids it did not hold (null: none): stale completions, which
-- change nothing. Those jobs were given to somebody else or were cancelled.
--
-- Called by: servers and workers straight on the database, in batches.  Tables: job (deletes).
declare
    finished bigint[];
begin
    with deleted as (
        -- Not "lease = holder": the planner may then go through all that has a lease, and through what stands in that index of
        -- jobs long gone while an old snapshot lives; 40 times as slow where 40,000 were held. (Nor anything else that is strict.)
        delete from postgear.job where job.id = any (ids) and job.lease is not distinct from coalesce(holder, 0)
        returning job.id
    )
    select array_agg(deleted.id) into finished from deleted;
    if cardinality(finished) = cardinality(ids) then
        return null;
    end if;
    return (
        select array_agg(asked.id)
        from unnest(ids) as asked (id)
        where asked.id not in (select done.id from unnest(finished) as done (id))
    );
end
$$;
