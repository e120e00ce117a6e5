create or replace function postgear.create_trigger(
    "table" regclass,
    function text,
    name text default null,
    events text[] default '{insert}',
    level text default 'statement',
    "when" text default null,
    columns text[] default null,
    payload text default 'row',
    payload_columns text[] default null,
    priority text default 'normal',
    delay interval default null,
    key text[] default null,
    enable text default 'origin'
) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
-- Make a trigger that queues a job of function for the rows that statements on a table insert, update or delete, and
-- return its name. docs/triggers.md explains the parameters.
--
-- Runs with the rights of the caller, who needs the privilege TRIGGER on the table (and must own it for enable other than
-- origin). The trigger's function belongs to the caller and runs with the caller's rights: so does a condition ("when") of
-- a statement-level trigger. That of a row-level trigger is PostgreSQL's own WHEN and runs as whoever writes the row.
-- Raises 22023 (invalid_parameter_value) or the class that fits, with a hint; 42710 when the table has such a trigger.
-- Tables: trigger (inserts, updates), function (inserts).  Makes: a function in postgear_trigger, a trigger on the table for each event.
declare
    definition postgear.trigger;
    relation_name text;
    event text;
    condition text;
    event_name text;
begin
    definition.relation := "table";
    definition.name := coalesce(create_trigger.name, left('postgear_' || regexp_replace(function, '[^A-Za-z0-9_]+', '_', 'g'), 54));
    definition.function := function;
    definition.events := events;
    definition.level := level;
    definition.condition := "when";
    definition.columns := columns;
    definition.payload := payload;
    definition.payload_columns := payload_columns;
    definition.priority := priority;
    definition.delay := delay;
    definition.key := key;
    definition.enable := enable;
    definition := postgear.trigger_checked(definition);
    select format('%I.%I', nspname, relname) into relation_name
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = "table";

    begin
        insert into postgear.trigger (relation, name, routine, function, events, level, condition, columns, payload,
            payload_columns, priority, delay, key, enable)
        select definition.relation, definition.name, '', definition.function, definition.events, definition.level,
            definition.condition, definition.columns, definition.payload, definition.payload_columns, definition.priority,
            definition.delay, definition.key, definition.enable
        returning trigger.id into definition.id;
    exception when unique_violation then
        raise duplicate_object using
            message = format('postgear: table %s has a trigger %I of postgear already', relation_name, definition.name),
            hint = 'Give this one another name, or drop the other with postgear.drop_trigger.';
    end;
    definition.routine := definition.name || '_' || definition.id;
    update postgear.trigger set routine = definition.routine where id = definition.id;

    execute format(
        'create function postgear_trigger.%I() returns trigger language plpgsql security definer'
        ' set search_path = pg_catalog, pg_temp as %L',
        definition.routine, postgear.trigger_function(definition)
    );
    -- Whoever may call it could put it on a table of their own and so queue what they like.
    execute format('revoke execute on function postgear_trigger.%I() from public', definition.routine);
    execute format(
        'comment on function postgear_trigger.%I() is %L',
        definition.routine, format('postgear: queues jobs of %s for %s', definition.function, relation_name)
    );

    -- Known from here on: the first use of a name in a transaction makes others that use it wait for the end of it.
    perform postgear.function_id(convert_to(definition.function, postgear.text_encoding()));

    foreach event in array definition.events loop
        event_name := definition.name || case when cardinality(definition.events) > 1 then '_' || event else '' end;
        condition := null;
        if definition.level = 'row' then
            condition := concat_ws(
                ' and ',
                case when event = 'update' and definition.columns is not null then postgear.trigger_changed(definition) end,
                case when definition.condition is not null then format(E'(%s\n)', definition.condition) end
            );
        end if;
        execute format(
            'create trigger %I after %s on %s%s for each %s%s execute function postgear_trigger.%I()',
            event_name,
            event,
            relation_name,
            case when definition.level = 'statement' then
                case event
                    when 'insert' then ' referencing new table as new_rows'
                    when 'update' then ' referencing old table as old_rows new table as new_rows'
                    when 'delete' then ' referencing old table as old_rows'
                end
            end,
            definition.level,
            case when condition <> '' then format(' when (%s)', condition) end,
            definition.routine
        );
        if definition.enable <> 'origin' then
            execute format('alter table %s enable %s trigger %I', relation_name, definition.enable, event_name);
        end if;
    end loop;
    return definition.name;
end
$$;
