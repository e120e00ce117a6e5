create or replace function postgear.function_id(function_name bytea) returns integer
language plpgsql
as $$
-- Return the id of a function, adding it when its name is used for the first time (or again after a drop).
--
-- function_name: at most 512 bytes, any but NUL.
-- Called by: ensure_functions, submit_job.  Tables: function (reads, inserts, updates).
declare
    found_id integer;
begin
    select id into found_id from postgear.function where name = function_name and not dropped;
    if not found then
        insert into postgear.function (name) values (function_name)
        on conflict (name) do update set dropped = false
        returning id into found_id;
    end if;
    return found_id;
end
$$;
