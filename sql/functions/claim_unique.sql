create or replace function postgear.claim_unique(holder bigint, of_function_id integer, key bytea)
returns table (id bigint, is_claimed boolean, priority smallint, attempt smallint, reducer bytea, workload bytea)
language sql
as $$
-- Look for the job with this function and unique key, so that a foreground client can join it: claim it for the server
-- if it is queued (is_claimed), else only report it (scheduled, or held by a server).
--
-- Called by: servers, for a foreground submit to a function that has background jobs too.  Tables: job (updates).
with present as materialized (
    select job.id from postgear.job where job.function_id = of_function_id and job.unique_key = key
    for update
),
claimed as (
    update postgear.job
    set lease = holder,
        attempt = least(job.attempt, 32766) + 1,
        unique_key = case when not job.until_claimed then job.unique_key end
    where job.id in (select present.id from present) and job.lease is null and job.run_at is null
      and exists (select from postgear.server where lease = holder)
    returning job.id, job.priority, job.attempt, job.reducer, job.workload
)
select present.id, claimed.id is not null, claimed.priority, claimed.attempt, claimed.reducer, claimed.workload
from present left join claimed on claimed.id = present.id
$$;
