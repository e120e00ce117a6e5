create or replace function postgear.trigger_changed(definition postgear.trigger) returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the SQL condition that one of a trigger's columns has another value in NEW than in OLD.
--
-- Types without equality, as json, are compared as text.  Called by: trigger_rows, create_trigger.
declare
    column_name text;
    type_name text;
    parts text[];
begin
    foreach column_name in array definition.columns loop
        select format_type(atttypid, null) into type_name
        from pg_attribute where attrelid = definition.relation and attname = column_name and not attisdropped;
        begin
            execute format('select null::%s is distinct from null::%1$s limit 0', type_name);
            parts := parts || format('new.%I is distinct from old.%1$I', column_name);
        exception when undefined_function then
            parts := parts || format('new.%I::text is distinct from old.%1$I::text', column_name);
        end;
    end loop;
    return '(' || array_to_string(parts, ' or ') || ')';
end
$$;
