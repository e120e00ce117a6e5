create or replace function postgear.finish_jobs(holder bigint, ids bigint[]) returns bigint[]
language sql
as $$
-- Delete finished jobs that holder holds and return the ids it did not hold (null: none): stale completions, which
-- change nothing. Those jobs were given to somebody else or were cancelled.
--
-- Called by: servers, in batches.  Tables: job (deletes).
with finished as (
    delete from postgear.job where job.id = any (ids) and job.lease = holder
    returning job.id
)
select array_agg(asked.id)
from unnest(ids) as asked (id)
where asked.id not in (select finished.id from finished)
$$;
