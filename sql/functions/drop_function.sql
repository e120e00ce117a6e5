create or replace function postgear.drop_function(function_name bytea) returns text
language plpgsql
as $$
-- Hide a function that has no jobs. Returns 'dropped', 'missing' or 'in use'.
--
-- The row stays, for servers remember its id; the next use of the name shows it again, as new.
-- Called by: servers (drop function).  Tables: function (updates), job (reads).
declare
    found_id integer;
begin
    select id into found_id from postgear.function where name = function_name and not dropped for update;
    if not found then
        return 'missing';
    end if;
    if postgear.is_full(found_id, 1) then
        return 'in use';
    end if;
    update postgear.function
    set dropped = true, max_high = null, max_normal = null, max_low = null, durability = default, keep_results = default
    where id = found_id;
    return 'dropped';
end
$$;
