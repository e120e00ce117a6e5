create or replace function postgear.record_attempts(holder bigint, ids bigint[], attempts smallint[]) returns void
language sql
as $$
-- Count deliveries that holder made from its memory, of jobs that did not leave it between them. Repeating a call changes nothing.
--
-- Called by: servers.  Tables: job (updates).
update postgear.job
set attempt = greatest(job.attempt, counted.attempt)
from unnest(ids, attempts) as counted (id, attempt)
where job.id = counted.id and job.lease is not distinct from coalesce(holder, 0)  -- by id: see finish_jobs
$$;
