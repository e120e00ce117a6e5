create or replace function postgear.end_lease(holder bigint) returns integer
language plpgsql
as $$
-- End a lease and release what it still holds; returns how many jobs. Their attempts count: they may have been given out.
--
-- Called by: servers when they stop, reap_leases.  Tables: job (updates), server (deletes).
declare
    released integer;
begin
    delete from postgear.server where lease = holder;
    update postgear.job
    set lease = null, progress_numerator = null, progress_denominator = null
    where lease = holder;
    get diagnostics released = row_count;
    if released > 0 then
        perform postgear.wake_servers();
    end if;
    return released;
end
$$;
