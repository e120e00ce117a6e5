create or replace function postgear.release_jobs(holder bigint, ids bigint[], given_out boolean) returns integer
language plpgsql
as $$
-- Put claimed jobs back into the queue, at their old place, and return how many.
--
-- given_out: a worker had them (the attempt counts); false: they never left the server (it does not).
-- Called by: servers.  Tables: job (updates), server (reads).
declare
    released integer;
begin
    update postgear.job
    set lease = null,
        attempt = greatest(attempt - (not given_out)::integer, 0),
        progress_numerator = null,
        progress_denominator = null
    where id = any (ids) and lease is not distinct from coalesce(holder, 0);  -- by id: see finish_jobs
    get diagnostics released = row_count;
    if released > 0 then
        perform postgear.wake_servers();
    end if;
    return released;
end
$$;
