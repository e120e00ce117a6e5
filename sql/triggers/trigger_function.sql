create or replace function postgear.trigger_function(definition postgear.trigger) returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the body of a trigger's function.
--
-- Every name in it is qualified by its block ("enqueue") or by NEW and OLD, and columns win over variables, so that no
-- column name of the table can be taken for a variable.  Called by: create_trigger.  Tables: pg_class (reads).
declare
    function_name text := format('decode(%L, ''hex'')', encode(convert_to(definition.function, postgear.text_encoding()), 'hex'));
    event text;
    branches text := '';
    word text := 'if';
begin
    foreach event in array definition.events loop
        branches := branches || format(E'\n    %s tg_op = %L then', word, upper(event));
        if event = 'update' and definition.level = 'statement' and postgear.trigger_pairs(definition)
            and exists (select from pg_class where oid = definition.relation and relkind = 'p')
        then
            branches := branches || $check$
        -- A row that a trigger of its new partition refused is in one transition table only: then no pair is sure.
        if (select count(*) from old_rows) <> (select count(*) from new_rows) then
            raise feature_not_supported using
                message = 'postgear: a row was lost on its way to another partition',
                hint = 'Use level => ''row''.';
        end if;$check$;
        end if;
        branches := branches || postgear.trigger_event(definition, event);
        word := 'elsif';
    end loop;
    return format(
        $body$
#variable_conflict use_column
<<enqueue>>
declare
    function_id integer;
    job_limit integer;
    is_wanted boolean;
    added bigint;
    table_name text;
begin
    select function.id, function.max_%2$s, exists (select from postgear.server where server.sleeping)
    into enqueue.function_id, enqueue.job_limit, enqueue.is_wanted
    from postgear.function
    where function.name = %1$s and not function.dropped;
    if not found then
        enqueue.function_id := postgear.function_id(%1$s);
        enqueue.is_wanted := true;
    end if;
%4$s%3$s
    end if;
    if enqueue.added > 0 then
        -- The jobs are counted already, so one more than the limit is too many.
        if enqueue.job_limit is not null and postgear.is_full(enqueue.function_id, least(enqueue.job_limit, 2147483646) + 1) then
            raise configuration_limit_exceeded using
                message = format('postgear: the queue of function "%%s" is full', encode(%1$s, 'escape')),
                hint = 'See max_high, max_normal and max_low in postgear.function.';
        end if;
        if enqueue.is_wanted then
            perform postgear.wake_servers();
        end if;
    end if;
    return null;
end
$body$,
        function_name,
        definition.priority,
        branches,
        case when definition.payload = 'change' then
            E'    enqueue.table_name := format(''%I.%I'', tg_table_schema, tg_table_name);\n'
        end
    );
end
$$;
