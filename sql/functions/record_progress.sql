create or replace function postgear.record_progress(
    holder bigint, ids bigint[], numerators bigint[], denominators bigint[]
) returns void
language sql
as $$
-- Store how far running jobs are, for status asked at other servers. No index has these columns: the update stays on its page.
--
-- Called by: servers, at most once a second a job.  Tables: job (updates).
update postgear.job
set progress_numerator = report.numerator, progress_denominator = report.denominator
from unnest(ids, numerators, denominators) as report (id, numerator, denominator)
where job.id = report.id and job.lease is not distinct from coalesce(holder, 0)  -- by id: see finish_jobs
$$;
