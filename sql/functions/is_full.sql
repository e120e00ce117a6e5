create or replace function postgear.is_full(limited_function_id integer, job_limit integer) returns boolean
language sql
stable
as $$
-- Say whether a function has at least job_limit jobs, queued, scheduled or running, of any priority.
--
-- Reads no more than job_limit index entries.  Called by: submit_jobs, drop_function, servers (foreground submits).  Tables: job (reads).
select count(*) >= job_limit
from (
    (select from postgear.job
     where function_id = limited_function_id and priority between 0 and 2 and lease is null and run_at is null
     limit job_limit)
    union all
    (select from postgear.job where function_id = limited_function_id and lease is not null limit job_limit)
    union all
    (select from postgear.job where function_id = limited_function_id and run_at is not null limit job_limit)
) counted
$$;
