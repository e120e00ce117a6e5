create or replace function postgear.set_limits(function_name bytea, high integer, normal integer, low integer) returns boolean
language plpgsql
as $$
-- Limit how many jobs a function may have when a high, normal or low job is submitted; null or below 1: no limit.
-- False: there is no such function.
--
-- Called by: servers (maxqueue).  Tables: function (updates).
begin
    update postgear.function
    set max_high = case when high > 0 then high end,
        max_normal = case when normal > 0 then normal end,
        max_low = case when low > 0 then low end
    where name = function_name and not dropped;
    if found then
        perform pg_notify('postgear', 'functions');
    end if;
    return found;
end
$$;
