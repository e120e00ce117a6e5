create or replace function postgear.trigger_key(definition postgear.trigger, event text) returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the SQL expression of a trigger's coalescing key for one event, over NEW and OLD.
--
-- The trigger's number is part of it: rows of two tables with the same key are two jobs. Values whose text depends on settings
-- go in binary form, which does not. All of them would not do: the binary form of text depends on client_encoding.
-- Called by: trigger_event.  Tables: none but the catalog.
select format(
    '''t''::bytea || sha512(convert_to(%L || json_build_array(%s)::text, %L))',
    definition.id || ':',
    string_agg(
        format(
            case when postgear.trigger_key_varies(atttypid) then 'encode(record_send(row(%s.%I)), ''hex'')' else '%s.%I' end,
            case event when 'delete' then 'old' else 'new' end,
            column_name
        ),
        ', ' order by place
    ),
    postgear.text_encoding()
)
from unnest(definition.key) with ordinality as listed (column_name, place)
join pg_attribute on attrelid = definition.relation and attname = column_name and not attisdropped
$$;
