create or replace function postgear.wake_servers() returns void
language plpgsql
as $$
-- Notify the servers that said they sleep; do nothing while all are awake, for they poll.
--
-- NOTIFY takes a lock that every notifying commit of the whole cluster waits for, so a busy queue must not send it.
-- A server that falls asleep at the same moment finds the job by its next poll.  Tables: server (reads).
begin
    if exists (select from postgear.server where sleeping) then
        perform pg_notify('postgear', 'wake');
    end if;
end
$$;
