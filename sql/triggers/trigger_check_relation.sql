create or replace function postgear.trigger_check_relation(definition postgear.trigger) returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Raise unless the relation can have the trigger. What PostgreSQL refuses with a clear message itself is left to it.
--
-- Called by: trigger_checked.  Tables: pg_class (reads).
declare
    found_class pg_class;
begin
    select * into found_class from pg_class where oid = definition.relation;
    if not found then
        raise undefined_table using message = format('postgear: there is no table %s', definition.relation);
    end if;
    if found_class.relkind in ('v', 'm') then
        raise wrong_object_type using
            message = format('postgear: %s is a view', definition.relation),
            hint = 'Make the trigger on the table underneath: a view has no rows of its own, and a row-level trigger on it would '
                'take the place of the write.';
    elsif found_class.relkind not in ('r', 'p', 'f') then
        raise wrong_object_type using message = format('postgear: %s is not a table', definition.relation);
    elsif found_class.relkind = 'f' and definition.level = 'statement' then
        raise wrong_object_type using
            message = format('postgear: %s is a foreign table, which has no transition tables', definition.relation),
            hint = 'Use level => ''row''; it sees the changes made through this foreign table only.';
    elsif found_class.relpersistence = 't' then
        raise wrong_object_type using
            message = format('postgear: %s is a temporary table', definition.relation),
            hint = 'Call gman_do_background or postgear.submit_coalesced instead.';
    elsif found_class.relnamespace = 'postgear'::regnamespace then
        raise wrong_object_type using message = format('postgear: %s belongs to the queue itself', definition.relation);
    elsif found_class.relispartition and definition.level = 'statement' then
        raise wrong_object_type using
            message = format('postgear: %s is a partition', definition.relation),
            hint = 'Statements on the partitioned table do not fire its statement-level triggers: make the trigger on the '
                'partitioned table, or use level => ''row''.';
    end if;
end
$$;
