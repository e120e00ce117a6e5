create or replace function postgear.learn_functions(function_names bytea[])
returns table (
    name bytea, id integer, max_high integer, max_normal integer, max_low integer, has_uniques boolean, durability text
)
language sql
as $$
-- Return what ensure_functions does, and how safely the jobs of each function are stored.
--
-- A function of its own, for servers of the release before have prepared the other one, and its columns must stay as they are.
-- Called by: servers.  Tables: as ensure_functions.
select known.name, known.id, known.max_high, known.max_normal, known.max_low, known.has_uniques,
    coalesce(function.durability, 'replicated')  -- the snapshot does not show a function that was just added
from postgear.ensure_functions(function_names) as known
left join postgear.function on function.id = known.id
$$;
