-- gman_do_background, gman_do_high_background, gman_do_low_background, for text, json, jsonb and bytea.
--
-- One body for all twelve, made here, so that they cannot drift. An unknown literal resolves to text. PL/pgSQL, so that
-- the branch not taken needs nothing: neither a queue in this database nor PL/Python. Names are qualified throughout:
-- these run with the search_path of the caller, for setting another would cost a row trigger a tenth of its speed.
do $make$
declare
    suffix text;
    priority integer;
    kind text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    for suffix, priority in values ('_high', 0), ('', 1), ('_low', 2) loop
        foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
            execute format($create$
                create or replace function gman_do%1$s_background(
                    function_name text, workload %3$s, unique_key text default null, run_at timestamptz default null
                ) returns text
                language plpgsql
                volatile
                as $body$
                -- Queue a job in this transaction, or send it to the servers set; return its handle.
                --
                -- unique_key: null or empty never coalesces, '-' means the workload.  run_at: not before.
                -- A null workload is an empty one.  Errors: as postgear.submit_job, or as gman_do when sent.
                begin
                    if coalesce(pg_catalog.current_setting('gman.servers', true), '') operator(pg_catalog.=) ''
                        and coalesce(pg_catalog.current_setting('gman.function_servers', true), '') operator(pg_catalog.=) ''
                    then
                        return postgear.queue_job(
                            pg_catalog.convert_to(function_name, '%5$s'), coalesce(%4$s, ''),
                            pg_catalog.convert_to(unique_key, '%5$s'), %2$s::pg_catalog.int2, run_at
                        );
                    end if;
                    return @extschema@.gman_send(
                        pg_catalog.convert_to(function_name, '%5$s'), %4$s,
                        pg_catalog.convert_to(unique_key, '%5$s'), %2$s::pg_catalog.int2, run_at
                    );
                end
                $body$
                $create$,
                suffix, priority, kind,
                case kind when 'bytea' then 'workload' else format('pg_catalog.convert_to(workload::pg_catalog.text, %L)', encoding) end,
                encoding);
            execute format(
                'comment on function gman_do%s_background(text, %s, text, timestamptz) is %L',
                suffix, kind,
                'postgear: queue a job, return its handle (function, workload [, unique] [, run_at])');
        end loop;
    end loop;
end
$make$;
