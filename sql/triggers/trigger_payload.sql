create or replace function postgear.trigger_payload(definition postgear.trigger, event text) returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the SQL expression of a trigger's workload for one event (insert, update, delete, truncate), over NEW and OLD.
--
-- Rows are written NEW.*, for a column may be called "new".  Called by: trigger_event.  Tables: none.
declare
    -- What is left of a deleted row is its old version.
    source text := case event when 'delete' then 'old' else 'new' end;
    picked text[];
begin
    if definition.payload = 'row' then
        return format('convert_to(row_to_json(%s.*)::text, %L)', source, postgear.text_encoding());
    elsif definition.payload = 'change' then
        return format(
            'convert_to((select row_to_json(change) from (select %L as op, enqueue.table_name as "table", %s as old, %s as new)'
            ' as change)::text, %L)',
            event,
            case when event in ('update', 'delete') then 'row_to_json(old.*)' else 'null::json' end,
            case when event in ('insert', 'update') then 'row_to_json(new.*)' else 'null::json' end,
            postgear.text_encoding()
        );
    end if;
    select array_agg(format('%s.%I as %2$I', source, column_name) order by place) into picked
    from unnest(definition.payload_columns) with ordinality as listed (column_name, place);
    return format(
        'convert_to((select row_to_json(picked) from (select %s) as picked)::text, %L)',
        array_to_string(picked, ', '), postgear.text_encoding()
    );
end
$$;
