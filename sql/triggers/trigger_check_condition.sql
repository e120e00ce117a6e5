create or replace function postgear.trigger_check_condition(definition postgear.trigger) returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Raise unless a trigger's condition is one SQL expression that is valid for each of its events: an insert has no OLD, a
-- delete no NEW. Parses and plans it; does not run it.
--
-- With the caller's rights; where a statement-level trigger's condition has a subquery, with those that it will have.
--
-- Called by: trigger_checked.  Tables: none but the catalog.
declare
    event text;
    -- A cursor takes one statement only.
    checked refcursor;
    row_source text;
    runs_as name;
    role_before text := current_setting('role');
begin
    if definition.condition is null then
        return;
    end if;
    select format('(select (null::%I.%I).*)', nspname, relname) into row_source
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = definition.relation;
    if definition.level = 'statement' and definition.condition ~* '\mselect\M' then
        runs_as := postgear.trigger_owner();
        perform set_config('role', runs_as, true);
    end if;
    foreach event in array definition.events loop
        open checked for execute format(
            E'select from %s where (%s\n) limit 0',
            concat_ws(
                ', ',
                case when event in ('insert', 'update') then row_source || ' as new' end,
                case when event in ('update', 'delete') then row_source || ' as old' end
            ),
            definition.condition
        );
        close checked;
    end loop;
    perform set_config('role', role_before, true);
exception when insufficient_privilege then
    if runs_as is not null then
        raise insufficient_privilege using
            message = sqlerrm,
            hint = format('The condition runs as role %s: grant it select on what the subquery reads, and usage of the schemas.', runs_as);
    end if;
    raise;
end
$$;
