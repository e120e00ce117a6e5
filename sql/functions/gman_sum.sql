-- gman_sum(function, workload [, unique]): an aggregate that runs a job for each row and adds up the results.
--
-- For text, json, jsonb and bytea. The jobs run when the last row is there, up to 100 at a time. A result must begin with
-- an integer (more may follow, as C's atoi has it); a job that fails is an error; no rows give null. Null workloads are
-- empty ones. Not as a window function: each of its rows would run the jobs again.
do $make$
declare
    kind text;
    arguments text;
    unique_key text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
        for arguments, unique_key in
            values ('', 'null'), (', unique_key text', format('pg_catalog.convert_to(unique_key, %L)', encoding))
        loop
            execute format($create$
                create or replace function gman_sum_add(state bigint, function_name text, workload %1$s%2$s) returns bigint
                language sql
                volatile
                as $body$
                -- Internal: add one row to the sum with the number state.
                select @extschema@.gman_sum_queue(
                    state, pg_catalog.convert_to(function_name, '%5$s'), %3$s, %4$s
                )
                $body$;
                comment on function gman_sum_add(bigint, text, %1$s%2$s) is 'postgear: internal, a row of gman_sum';
                create or replace aggregate gman_sum(function_name text, workload %1$s%2$s) (
                    sfunc = gman_sum_add,
                    stype = bigint,
                    finalfunc = @extschema@.gman_sum_end,
                    finalfunc_modify = read_write
                );
                comment on aggregate gman_sum(text, %1$s%2$s)
                    is 'postgear: run a job for each row and add up their results (function, workload [, unique])';
                $create$,
                kind, arguments,
                case kind when 'bytea' then 'workload' else format('pg_catalog.convert_to(workload::pg_catalog.text, %L)', encoding) end,
                unique_key, encoding);
        end loop;
    end loop;
end
$make$;
