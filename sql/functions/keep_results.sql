create or replace function postgear.keep_results(function_name bytea, how_long interval) returns boolean
language plpgsql
as $$
-- Say how long the results of this function's background jobs are kept after they have ended: at most 100 years; null: not at
-- all, from now on, and what is kept already stays until its time. False: there is no such function.
--
-- For jobs that end when servers and workers have heard of it, by the NOTIFY. Read with gman_result.
-- Called by: postgear keep-results, people.  Tables: function (updates).
begin
    update postgear.function set keep_results = how_long where name = function_name and not dropped;
    if found then
        perform pg_notify('postgear', 'functions');
    end if;
    return found;
end
$$;
