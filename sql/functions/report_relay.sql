create or replace function postgear.report_relay(
    of_relay integer,
    holder_generation bigint,
    settled_batch bigint,
    waiting bigint,
    failed bigint,
    seconds double precision,
    rate double precision,
    what text
) returns boolean
language sql
as $$
-- Renew a relay's hold on its outbox and say how it goes; false: another relay has taken over.
--
-- settled_batch: as for relay_jobs.  waiting: rows in the outbox; null: it cannot be read, or rows cannot be stored; then
-- what was seen last stays.
-- failed: rows set aside since the last report.  seconds: the age of the oldest row, null: there is none.  rate: rows moved a
-- second.  what: an error since the last report; null: none.
-- Called by: relays, once a second.  Tables: relay (updates).
with reported as (
    update postgear.relay
    set renewed_at = clock_timestamp(),
        settled = greatest(settled, settled_batch),
        is_failing = waiting is null,
        rows_waiting = coalesce(waiting, rows_waiting),
        rows_failed = rows_failed + failed,
        oldest_at = case when waiting is null then oldest_at else clock_timestamp() - make_interval(secs => seconds) end,
        looked_at = case when waiting is null then looked_at else clock_timestamp() end,
        rows_per_second = rate,
        error = coalesce(what, error),
        error_at = case when what is null then error_at else clock_timestamp() end
    where id = of_relay and generation = holder_generation
    returning id
)
select exists (select from reported)
$$;
