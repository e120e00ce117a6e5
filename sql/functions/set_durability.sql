create or replace function postgear.set_durability(function_name bytea, tier text) returns boolean
language plpgsql
as $$
-- Say what the acknowledgement of a job of this function promises: tier is 'replicated', 'local' or 'relaxed', see
-- postgear.function. False: there is no such function. A batch commits as its most careful function wants it.
--
-- Called by: postgear durability, people.  Tables: function (updates).
begin
    update postgear.function set durability = tier where name = function_name and not dropped;
    if found then
        perform pg_notify('postgear', 'functions');
    end if;
    return found;
end
$$;
