create or replace function postgear.list_jobs(after_id bigint, row_limit integer)
returns table (id bigint, attempt smallint, running boolean, unique_key bytea)
language sql
stable
as $$
-- Return a page of jobs in order of their ids, those above after_id.
--
-- Called by: servers (show jobs, show unique jobs).  Tables: job (reads).
select id, attempt, lease is not null, unique_key
from postgear.job
where id > after_id
order by id
limit row_limit
$$;
