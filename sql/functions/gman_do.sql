-- gman_do, gman_do_high, gman_do_low: run a job and wait for its result. For text, json, jsonb and bytea.
--
-- One body for all twelve, made here, so that they cannot drift; as short as it is, it is put into the caller's statement.
-- Names are qualified throughout: these run with the search_path of the caller.
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
                create or replace function gman_do%1$s(
                    function_name text, workload %3$s, unique_key text default null, timeout interval default null
                ) returns %6$s
                language sql
                volatile
                as $body$
                -- Run a job at a Gearman server and return its result, as bytes for a workload of bytes, else as text.
                --
                -- Servers: gman.servers, else those of this database's queue.  timeout: for all of it; null: gman.timeout.
                -- The job sees nothing of this transaction.  Errors: 38000 the job failed, HYT00 timeout, 08001 and 08006
                -- connection, 22021 the result is no text.  Tables: server (reads).
                select %5$s@extschema@.gman_wait(
                    pg_catalog.convert_to(function_name, '%7$s'),
                    %4$s,
                    pg_catalog.convert_to(unique_key, '%7$s'),
                    %2$s::pg_catalog.int2,
                    pg_catalog.date_part('epoch', timeout)
                )%8$s
                $body$
                $create$,
                suffix, priority, kind,
                case kind when 'bytea' then 'workload' else format('pg_catalog.convert_to(workload::pg_catalog.text, %L)', encoding) end,
                case kind when 'bytea' then '' else 'pg_catalog.convert_from(' end,
                case kind when 'bytea' then 'bytea' else 'text' end,
                encoding,
                case kind when 'bytea' then '' else format(', %L)', encoding) end);
            execute format(
                'comment on function gman_do%s(text, %s, text, interval) is %L',
                suffix, kind,
                'postgear: run a job and return its result (function, workload [, unique] [, timeout])');
        end loop;
    end loop;
end
$make$;
