-- gman_do_epoch: a background job not to be run before a time, as SUBMIT_JOB_EPOCH has it. For text, json, jsonb and bytea.
do $make$
declare
    kind text;
begin
    foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
        execute format($create$
            create or replace function gman_do_epoch(
                function_name text, workload %1$s, epoch bigint, unique_key text default null
            ) returns text
            language sql
            volatile
            as $body$
            -- Queue a job that starts not before epoch (Unix time, seconds); null or past: at once. Return its handle.
            --
            -- Otherwise as gman_do_background, which takes a timestamptz.
            select @extschema@.gman_do_background(
                function_name, workload, unique_key, pg_catalog.to_timestamp(epoch::pg_catalog.float8)
            )
            $body$
            $create$, kind);
        execute format('comment on function gman_do_epoch(text, %s, bigint, text) is %L', kind,
            'postgear: queue a job for a Unix time, return its handle (function, workload, epoch [, unique])');
    end loop;
end
$make$;
