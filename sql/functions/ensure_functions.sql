create or replace function postgear.ensure_functions(function_names bytea[])
returns table (name bytea, id integer, max_high integer, max_normal integer, max_low integer, has_uniques boolean)
language sql
as $$
-- Return id and queue limits of each function, and whether it has jobs with a unique; adds those that are not known yet.
--
-- function_names: in any order, at most 512 bytes each.
-- Called by: servers, for names they see for the first time and when limits change.
-- Tables: function (reads, inserts, updates), job (reads).
with known as materialized (
    select wanted.name, postgear.function_id(wanted.name) as id
    from unnest(function_names) as wanted (name)
)
select known.name, known.id, limited.max_high, limited.max_normal, limited.max_low,
    exists (select from postgear.job where job.function_id = known.id and job.unique_key is not null)
from known
left join postgear.function limited on limited.id = known.id
$$;
