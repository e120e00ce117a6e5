create or replace function postgear.count_up_to(counted_function_id integer, ceiling integer) returns integer
language sql
stable
as $$
-- Count the jobs of a function, queued, scheduled or running, of any priority, but no further than ceiling.
--
-- Queued jobs cost an index entry each, at most ceiling. Only if they are fewer, the held and the scheduled jobs of all functions
-- are read: their indexes do not have the function, and a column more would cost every insert.
-- Called by: submit_jobs, is_full.  Tables: job (reads).
select count(*)::integer
from (
    (select from postgear.job
     where function_id = counted_function_id and priority between 0 and 2 and lease is null and run_at is null
     limit ceiling)
    union all
    (select from postgear.job where function_id = counted_function_id and lease is not null limit ceiling)
    union all
    (select from postgear.job where function_id = counted_function_id and run_at is not null limit ceiling)
    limit ceiling
) counted
$$;
