create or replace function postgear.wake_servers() returns void
language plpgsql
as $$
-- Notify the servers that said they sleep; do nothing while all are awake, for they poll.
--
-- NOTIFY takes a lock that every notifying commit of the whole cluster waits for, so a busy queue must not send it.
-- A transaction that notified cannot be prepared: where the cluster allows prepared transactions, none notifies unless the
-- setting postgear.notify is on; 'off' keeps a session from it anywhere. The servers then find the job by their next poll,
-- as they do when they fall asleep at the same moment.  Tables: server (reads).
begin
    if exists (select from postgear.server where sleeping)
        and coalesce(
            nullif(current_setting('postgear.notify', true), '')::boolean,
            current_setting('max_prepared_transactions')::integer = 0
        )
    then
        perform pg_notify('postgear', 'wake');
    end if;
end
$$;
