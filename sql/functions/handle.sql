create or replace function postgear.handle(job_id bigint) returns text
language sql
stable
as $$
-- Return the handle of a background job: H:<queue name>:<id>, valid at every server of the queue.
--
-- Tables: queue (reads).
select 'H:' || name || ':' || job_id from postgear.queue
$$;
