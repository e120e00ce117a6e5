create or replace function postgear.trigger_checked(definition postgear.trigger) returns postgear.trigger
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return a trigger's definition completed (events in order, the primary key's columns where they are meant), or raise what
-- is wrong with it.
--
-- Called by: create_trigger.  Tables: none but the catalog.
declare
    canonical constant text[] := array['insert', 'update', 'delete', 'truncate'];
    primary_key text[];
begin
    if definition.relation is null or definition.function is null or definition.events is null or definition.level is null
        or definition.payload is null or definition.priority is null or definition.enable is null
    then
        raise null_value_not_allowed using
            message = 'postgear: table, function, events, level, payload, priority and enable must not be null';
    end if;
    if octet_length(convert_to(definition.function, postgear.text_encoding())) not between 1 and 512 then
        raise string_data_right_truncation using
            message = format('postgear: a function name has 1 to 512 bytes, this one has %s', octet_length(definition.function));
    end if;
    if octet_length(definition.name) not between 1 and 54 then
        raise string_data_right_truncation using
            message = format('postgear: a trigger''s name has 1 to 54 bytes, this one has %s', octet_length(definition.name));
    end if;
    perform postgear.trigger_check_word('events', each, canonical) from unnest(definition.events) as each;
    perform postgear.trigger_check_word('level', definition.level, array['statement', 'row']);
    perform postgear.trigger_check_word('payload', definition.payload, array['row', 'change', 'key', 'columns']);
    perform postgear.trigger_check_word('priority', definition.priority, array['high', 'normal', 'low']);
    perform postgear.trigger_check_word('enable', definition.enable, array['origin', 'replica', 'always']);
    if cardinality(definition.events) = 0 then
        raise invalid_parameter_value using message = 'postgear: events must not be empty';
    end if;
    definition.events := array(select each from unnest(canonical) as each where each = any (definition.events));
    -- 'infinity', too, where intervals have that.
    if definition.delay not between interval '0' and interval '1000 years' then
        raise invalid_parameter_value using
            message = format('postgear: delay %s is negative or more than 1000 years', definition.delay);
    end if;

    perform postgear.trigger_check_relation(definition);
    select array_agg(attname::text order by array_position(conkey, attnum)) into primary_key
    from pg_constraint
    join pg_attribute on attrelid = conrelid and attnum = any (conkey)
    where conrelid = definition.relation and contype = 'p';
    if definition.key = '{}' then
        if primary_key is null then
            raise undefined_object using
                message = format('postgear: table %s has no primary key', definition.relation),
                hint = 'Name the columns of the key.';
        end if;
        definition.key := primary_key;
    end if;
    if definition.payload = 'key' then
        if definition.payload_columns is not null then
            raise invalid_parameter_value using
                message = 'postgear: payload_columns are for payload ''columns''';
        end if;
        definition.payload_columns := coalesce(definition.key, primary_key);
        if definition.payload_columns is null then
            raise undefined_object using
                message = format('postgear: table %s has no primary key', definition.relation),
                hint = 'Name the columns with key, or use payload => ''columns''.';
        end if;
    elsif (definition.payload = 'columns') <> (coalesce(cardinality(definition.payload_columns), 0) > 0) then
        raise invalid_parameter_value using
            message = 'postgear: payload ''columns'' needs payload_columns, and no other payload has them';
    end if;
    if definition.columns is not null and (cardinality(definition.columns) = 0 or not 'update' = any (definition.events)) then
        raise invalid_parameter_value using
            message = 'postgear: columns are those of which an update must change one: events must have update, columns a name';
    end if;
    perform postgear.trigger_check_columns(definition.relation, 'columns', definition.columns);
    perform postgear.trigger_check_columns(definition.relation, 'payload_columns', definition.payload_columns);
    perform postgear.trigger_check_columns(definition.relation, 'key', definition.key);
    if 'truncate' = any (definition.events) and (
        definition.level = 'row' or definition.payload <> 'change'
        or definition.key is not null or definition.condition is not null
    ) then
        raise invalid_parameter_value using
            message = 'postgear: a truncate has no rows',
            hint = 'It goes with level ''statement'', payload ''change'', and neither key nor when; give it a trigger of its own.';
    end if;
    if definition.enable <> 'origin' and definition.level = 'statement' then
        raise feature_not_supported using
            message = 'postgear: the apply process of logical replication fires no statement-level triggers',
            hint = 'Use level => ''row''.';
    end if;
    perform postgear.trigger_check_condition(definition);
    return definition;
end
$$;
