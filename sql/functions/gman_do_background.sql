-- gman_do_background and its kin: (function, workload [, unique]) for text, json, jsonb and bytea.
--
-- One body for all twelve, made here, so that they cannot drift. Each returns the job's handle; the job exists if and
-- only if the caller's transaction commits. An unknown literal resolves to text.
do $make$
declare
    suffix text;
    priority integer;
    kind text;
begin
    for suffix, priority in values ('_high', 0), ('', 1), ('_low', 2) loop
        foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
            execute format($create$
                create or replace function gman_do%1$s_background(
                    function_name text, workload %3$s, unique_key text default null
                ) returns text
                language sql
                volatile
                as $body$
                -- Queue a job in this transaction and return its handle. See postgear.submit_job for limits and errors.
                select postgear.handle(postgear.submit_job(
                    convert_to(function_name, 'UTF8'),
                    %4$s,
                    convert_to(unique_key, 'UTF8'),
                    %2$s::smallint
                ))
                $body$
                $create$,
                suffix, priority, kind,
                case kind when 'bytea' then 'workload' else 'convert_to(workload::text, ''UTF8'')' end);
            execute format(
                'comment on function gman_do%s_background(text, %s, text) is %L',
                suffix, kind,
                'postgear: queue a job in this transaction, return its handle (function, workload [, unique])');
        end loop;
    end loop;
end
$make$;
