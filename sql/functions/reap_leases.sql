create or replace function postgear.reap_leases()
returns table (lease bigint, name text, released integer)
language plpgsql
as $$
-- End the leases of dead servers: not renewed for 1.5 s while nobody holds their advisory lock (the process or its
-- session is gone), or not renewed for lease_seconds (hung, or cut off). Releases orphans, too: jobs of a lease that has no row.
-- They come about only when a lease ends while its server does not know it: by a claim that was under way, or by jobs that
-- were born claimed before the server noticed. (And when people delete rows of server, or restore a part of the tables.)
--
-- The clock may be another one than the row was stamped by, after a failover, or may have been set. A row of the future is looked at
-- as well, and the lock decides. Where this session's last call was more than 3 s ago (it comes twice a second), the clock may have been
-- set forward, and those that hold their lock have 3 s to renew; the session remembers both in settings.
-- Renewal comes every second, so a killed server's jobs are free again within 1.5 s plus one call of this.
-- Orphans are looked for between the leases that live: what those have claimed and finished leaves dead index entries, which
-- stay while an old snapshot does. Entries of ended leases may stay as well, so a look that took t seconds is followed by a
-- pause of 20 t; the session remembers until when, in the setting postgear.orphans_due. A lease that was ended ends the pause.
-- Called by: every server, twice a second.  Tables: server (reads, deletes), job (reads, updates).
#variable_conflict use_column
declare
    looked_at timestamptz := clock_timestamp();
    seconds double precision := extract(epoch from looked_at);
    is_steady boolean;
    has_ended boolean := false;
    started_at double precision;
    took double precision;
begin
    if seconds > nullif(current_setting('postgear.leases_looked_at', true), '')::double precision + 3 then
        perform set_config('postgear.clock_steady_at', (seconds + 3)::text, false);
    end if;
    perform set_config('postgear.leases_looked_at', seconds::text, false);
    is_steady := seconds >= coalesce(nullif(current_setting('postgear.clock_steady_at', true), ''), '0')::double precision;
    for lease, name in
        select server.lease, server.name
        from postgear.server
        where (renewed_at < looked_at - interval '1.5 seconds' or renewed_at > looked_at + interval '1 second')
          and ((is_steady and renewed_at < looked_at - make_interval(secs => lease_seconds))
            or pg_try_advisory_xact_lock(postgear.lease_lock_class(), (server.lease % 2147483647)::integer))
        for update skip locked
    loop
        released := postgear.end_lease(reap_leases.lease);
        has_ended := true;
        return next;
    end loop;

    started_at := extract(epoch from clock_timestamp());
    if has_ended then
        -- What its server is claiming at this moment is there for the next call.
        perform set_config('postgear.orphans_due', '', false);
    elsif started_at >= coalesce(nullif(current_setting('postgear.orphans_due', true), ''), '0')::double precision then
        name := null;
        -- One statement, so one snapshot: the row of a lease is committed before its first job.
        for lease in
            select orphan.lease
            from (
                select 0 as low, min(server.lease) as high from postgear.server
                union all
                select server.lease, lead(server.lease) over (order by server.lease) from postgear.server
            ) gap
            cross join lateral (
                select job.lease from postgear.job
                where job.lease > gap.low and job.lease < coalesce(gap.high, 9223372036854775807)
                order by job.lease limit 1
                for update skip locked  -- see end_lease
            ) orphan
        loop
            released := postgear.end_lease(reap_leases.lease);
            return next;
        end loop;
        if not found then
            took := extract(epoch from clock_timestamp()) - started_at;
            perform set_config('postgear.orphans_due', (started_at + 20 * took)::text, false);
        end if;
    end if;
end
$$;
