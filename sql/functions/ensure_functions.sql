create or replace function postgear.ensure_functions(function_names bytea[])
returns table (name bytea, id integer, max_high integer, max_normal integer, max_low integer)
language sql
as $$
-- Return id and queue limits of each function, adding those that are not known yet.
--
-- function_names: in any order, at most 512 bytes each.
-- Called by: servers, for names they see for the first time.  Tables: function (reads, inserts, updates).
with known as materialized (
    select wanted.name, postgear.function_id(wanted.name) as id
    from unnest(function_names) as wanted (name)
)
select known.name, known.id, limited.max_high, limited.max_normal, limited.max_low
from known
left join postgear.function limited on limited.id = known.id
$$;
