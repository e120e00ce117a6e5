create or replace function postgear.is_full(limited_function_id integer, job_limit integer) returns boolean
language sql
stable
as $$
-- Say whether a function has at least job_limit jobs, queued, scheduled or running, of any priority.
--
-- Called by: drop_function, servers (foreground submits).  Tables: as count_up_to.
select postgear.count_up_to(limited_function_id, job_limit) >= job_limit
$$;
