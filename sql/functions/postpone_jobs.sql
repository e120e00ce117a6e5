create or replace function postgear.postpone_jobs(holder bigint, ids bigint[], seconds double precision[]) returns integer
language plpgsql
as $$
-- Put jobs back into the queue that somebody had, to be run again not before so many seconds from now (0 or less: at once).
-- Returns how many; those that holder does not hold stay as they are. Their attempts count.
--
-- Called by: workers straight on the database, for jobs that failed and have retries left.
-- Tables: job (updates), server (reads).
declare
    put_back integer;
begin
    update postgear.job
    set lease = null,
        run_at = case when later.seconds > 0 then clock_timestamp() + make_interval(secs => later.seconds) end,
        progress_numerator = null,
        progress_denominator = null
    from unnest(ids, postpone_jobs.seconds) as later (id, seconds)
    where job.id = later.id and job.lease is not distinct from coalesce(holder, 0);  -- by id: see finish_jobs
    get diagnostics put_back = row_count;
    if put_back > 0 then
        perform postgear.wake_servers();
    end if;
    return put_back;
end
$$;
