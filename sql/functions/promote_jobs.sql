create or replace function postgear.promote_jobs() returns double precision
language plpgsql
as $$
-- Queue the scheduled jobs whose time has come, at most 1,000 a call, and return the seconds until the next one is due
-- (0: there are more now; null: none is scheduled).
--
-- Called by: every server, with each poll; the skipped rows are being promoted by another.  Tables: job (updates).
declare
    due timestamptz := clock_timestamp();  -- a value: a volatile function bounds no index scan, so all that is scheduled would be read
    seconds double precision;
begin
    select extract(epoch from run_at - due) into seconds
    from postgear.job where run_at is not null order by run_at limit 1;
    if seconds is null or seconds > 0 then
        return seconds;
    end if;
    update postgear.job set run_at = null
    where id in (
        select id from postgear.job
        where run_at <= due
        order by run_at limit 1000
        for update skip locked
    );
    if not found then
        return 0.1;  -- others are at the due ones
    end if;
    perform postgear.wake_servers();
    select greatest(extract(epoch from run_at - clock_timestamp()), 0) into seconds
    from postgear.job where run_at is not null order by run_at limit 1;
    return seconds;
end
$$;
