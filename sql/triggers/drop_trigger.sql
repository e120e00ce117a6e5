create or replace function postgear.drop_trigger("table" regclass, name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
-- Drop a trigger that postgear.create_trigger made, its function and its definition. Jobs that it queued stay.
--
-- Runs with the rights of the caller, who must own the table and the trigger's function. Of a table that was dropped the
-- number does, as postgear.triggers shows it: drop_trigger('16401', ...).  Raises 42704 (undefined_object).
-- Tables: trigger (deletes).
declare
    found_routine text;
    installed record;
begin
    delete from postgear.trigger
    where trigger.relation = drop_trigger."table" and trigger.name = drop_trigger.name
    returning trigger.routine into found_routine;
    if not found then
        raise undefined_object using
            message = format('postgear: table %s has no trigger %I of postgear', "table", drop_trigger.name),
            hint = 'The view postgear.triggers lists them.';
    end if;
    for installed in
        select tgname, format('%I.%I', nspname, relname) as relation_name
        from pg_proc
        join pg_trigger on tgfoid = pg_proc.oid
        join pg_class on pg_class.oid = tgrelid
        join pg_namespace on pg_namespace.oid = relnamespace
        where pronamespace = 'postgear_trigger'::regnamespace
          and proname = found_routine
          and tgrelid = drop_trigger."table"
          and tgparentid = 0  -- those of partitions go with that of the partitioned table
    loop
        execute format('drop trigger %I on %s', installed.tgname, installed.relation_name);
    end loop;
    execute format('drop function if exists postgear_trigger.%I()', found_routine);
end
$$;
