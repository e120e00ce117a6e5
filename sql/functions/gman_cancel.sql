create or replace function gman_cancel(handle text) returns boolean
language plpgsql
volatile
strict
as $$
-- Remove a background job, queued, scheduled or running; false: there is none. The result of a running one is dropped.
--
-- Without servers set it is removed from this database's queue, in this transaction; with servers set they are told.
begin
    if coalesce(pg_catalog.current_setting('gman.servers', true), '') operator(pg_catalog.=) '' then
        return postgear.cancel_job(postgear.handle_id(handle));
    end if;
    return @extschema@.gman_ask_cancel(handle);
end
$$;
comment on function gman_cancel(text) is 'postgear: cancel a job (handle); true if there was one';
