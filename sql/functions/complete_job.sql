create or replace function postgear.complete_job(holder bigint, job_id bigint, delivery smallint) returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$
-- Delete a job that is done, in the transaction of what was done; false: it is no longer this delivery's, so all of that is to
-- be rolled back. The job was given out again, even by the same holder, or it was cancelled.
--
-- delivery: the attempt that claim_jobs returned.
-- Called by: workers straight on the database, for transactional functions, in sessions with settings of the application.
-- Tables: job (deletes).
with completed as (
    delete from postgear.job where id = job_id and lease = holder and attempt = delivery
    returning id
)
select exists (select from completed)
$$;
