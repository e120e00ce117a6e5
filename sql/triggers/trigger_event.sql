create or replace function postgear.trigger_event(definition postgear.trigger, event text) returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return the statements with which a trigger function queues the jobs of one event and counts them in "added".
--
-- Without a key it is one plain INSERT ... SELECT: what is added to that costs every row.
-- Called by: trigger_function.  Tables: none.
declare
    rows_source text := case when definition.level = 'statement' and event <> 'truncate' then postgear.trigger_rows(definition, event) else '' end;
    run_at text := case
        when definition.delay is null then 'null::timestamptz'
        else format('clock_timestamp() + %L::interval', definition.delay)
    end;
    priority integer := array_position(array['high', 'normal', 'low'], definition.priority) - 1;
    payload text := postgear.trigger_payload(definition, event);
begin
    if definition.key is null then
        return format(
            $insert$
        insert into postgear.job (function_id, priority, run_at, trigger_id, workload)
        select enqueue.function_id, %s, %s, %s,
            %s
        %s;
        get diagnostics added = row_count;$insert$,
            priority, run_at, definition.id, payload, rows_source
        );
    end if;
    -- In order of keys, so that two statements that meet wait for each other but do not deadlock. The last row of the
    -- statement.
    return format(
        $insert$
        with queued as (
            insert into postgear.job as present (function_id, priority, run_at, trigger_id, unique_key, until_claimed, workload)
            select enqueue.function_id, %1$s, %2$s, %3$s, newest.unique_key, true, newest.workload
            from (
                select distinct on (keyed.unique_key) keyed.unique_key, keyed.workload
                from (
                    select %4$s as unique_key, row_number() over () as place,
                        %5$s as workload
                    %6$s
                ) as keyed
                order by keyed.unique_key, keyed.place desc
            ) as newest
            on conflict (function_id, unique_key) where unique_key is not null
            do update set workload = excluded.workload
            returning xmax = 0 as is_new
        )
        select count(*) filter (where queued.is_new) into enqueue.added from queued;$insert$,
        priority, run_at, definition.id, postgear.trigger_key(definition, event), payload, rows_source
    );
end
$$;
