create or replace function postgear.end_lease(holder bigint) returns integer
language plpgsql
as $$
-- End a lease and release what it still holds; returns how many jobs. Their attempts count: they may have been given out.
--
-- A job that is locked is skipped: its transactional handler has completed it and not committed, and may hang for ever; all that wait
-- for this would hang with it. If that is rolled back the job is an orphan, which reap_leases releases.
-- The record of its last batch stays for its server to ask about, and those of others that ended two days ago go.
-- (A submit waits for the database for a day at most.)
-- Called by: servers when they stop, reap_leases.  Tables: job (updates), server, batch (deletes).
declare
    released integer;
begin
    delete from postgear.server where lease = holder;
    delete from postgear.batch
    where updated_at < now() - interval '2 days' and not exists (select from postgear.server where server.lease = batch.lease);
    update postgear.job
    set lease = null, progress_numerator = null, progress_denominator = null
    where id in (select id from postgear.job where lease = holder for update skip locked);
    get diagnostics released = row_count;
    if released > 0 then
        perform postgear.wake_servers();
    end if;
    return released;
end
$$;
