create or replace function postgear.cancel_job(job_id bigint) returns boolean
language plpgsql
as $$
-- Remove a job, queued, scheduled or running; false: there is none. The result of a running one will be dropped.
--
-- Servers are notified, so that the one that holds the job does not give it out.
-- Called by: servers (cancel job), gman_cancel.  Tables: job (deletes).
begin
    delete from postgear.job where id = job_id;
    if found then
        perform pg_notify('postgear', 'cancel ' || job_id);
    end if;
    return found;
end
$$;
