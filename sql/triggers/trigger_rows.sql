create or replace function postgear.trigger_rows(definition postgear.trigger, event text) returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the FROM and WHERE of a statement-level trigger for one event: the rows it queues jobs for, as NEW and OLD.
--
-- Called by: trigger_event.  Tables: none.
declare
    conditions text[];
    source text;
begin
    if event = 'update' and postgear.trigger_pairs(definition) then
        -- Transition tables have no row numbers, but each updated row is appended to both at once. The full join and
        -- the fence keep the planner from a nested loop: the plan made for one row is used for 100,000 later.
        source := 'from (
            select o.version as old_version, n.version as new_version
            from (select row_number() over () as place, "postgear row" as version from old_rows as "postgear row") as o
            full join (select row_number() over () as place, "postgear row" as version from new_rows as "postgear row") as n using (place)
            order by place
            offset 0
        ) as pair
        cross join lateral (select (pair.old_version).*) as old
        cross join lateral (select (pair.new_version).*) as new';
    else
        source := format('from %1$s_rows as %1$s', case event when 'delete' then 'old' else 'new' end);
    end if;
    if event = 'update' and definition.columns is not null then
        conditions := array[postgear.trigger_changed(definition)];
    end if;
    if definition.condition is not null then
        -- The line break ends a comment in the condition.
        conditions := conditions || format(E'(%s\n)', definition.condition);
    end if;
    return concat_ws(E'\n        where ', source, array_to_string(conditions, ' and '));
end
$$;
