create or replace function gman_status(
    handle text, out known boolean, out running boolean, out numerator bigint, out denominator bigint
) returns record
language plpgsql
volatile
strict
as $$
-- Return the state of a job by its handle, as Gearman's GET_STATUS has it; unknown or finished: all false and zero.
--
-- Without servers set: a background job of this database's queue.  With: whatever those servers know.
-- numerator, denominator: the progress its worker told last.
begin
    if coalesce(pg_catalog.current_setting('gman.servers', true), '') operator(pg_catalog.=) '' then
        select status.known, status.running, status.numerator, status.denominator
        into known, running, numerator, denominator
        from postgear.handle_status(gman_status.handle) as status;
    else
        select status.known, status.running, status.numerator, status.denominator
        into known, running, numerator, denominator
        from @extschema@.gman_ask_status(gman_status.handle) as status;
    end if;
end
$$;
comment on function gman_status(text) is 'postgear: the state of a job (handle): known, running, progress';
