create or replace function postgear.trigger_key(definition postgear.trigger, event text) returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the SQL expression of a trigger's coalescing key for one event, over NEW and OLD.
--
-- The trigger's number is part of it: rows of two tables with the same key are two jobs.  Called by: trigger_event.
select format(
    '''t''::bytea || sha512(convert_to(%L || json_build_array(%s)::text, %L))',
    definition.id || ':',
    string_agg(format('%s.%I', case event when 'delete' then 'old' else 'new' end, column_name), ', ' order by place),
    postgear.text_encoding()
)
from unnest(definition.key) with ordinality as listed (column_name, place)
$$;
