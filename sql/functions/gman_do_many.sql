-- gman_do_many: scatter and gather. For arrays of text, json, jsonb and bytea; result and error of each job as it ends.
--
-- The fifth, of text, is there for literals: '{a,b}' of no known type would fit each of the arrays, and none is preferred.
do $make$
declare
    kind text;
    as_bytes text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    foreach kind in array array['text[]', 'json[]', 'jsonb[]', 'bytea[]', 'text'] loop
        as_bytes := case kind
            when 'bytea[]' then 'workloads'
            else format(
                'array(select pg_catalog.convert_to(w::pg_catalog.text, %L) from pg_catalog.unnest(workloads%s) with ordinality as t (w, n) order by n)',
                encoding, case kind when 'text' then '::pg_catalog.text[]' else '' end)
        end;
        execute format($create$
            create or replace function gman_do_many(
                function_name text, workloads %1$s, unique_keys text[] default null,
                in_flight integer default null, timeout interval default null
            ) returns table (ordinality bigint, result %3$s, error text)
            language sql
            volatile
            rows 100
            as $body$
            -- Run a job for each workload, at most in_flight (default 100) at a time; return each one's end when it comes.
            --
            -- ordinality: the place in workloads.  result is null and error says why when that job failed; the others go on.
            -- timeout: for all of them.  In FROM, PostgreSQL collects the rows first; select gman_do_many(...) gives them at once.
            -- Errors but those of jobs: as gman_do.
            select (ended).ordinality, %4$s, (ended).error
            from (
                select @extschema@.gman_wait_many(
                    pg_catalog.convert_to(function_name, '%5$s'),
                    %2$s,
                    array(
                        select pg_catalog.convert_to(u, '%5$s')
                        from pg_catalog.unnest(unique_keys) with ordinality as t (u, n) order by n
                    ),
                    in_flight,
                    pg_catalog.date_part('epoch', timeout)
                ) as ended
            ) as ends
            $body$
            $create$,
            kind, as_bytes,
            case kind when 'bytea[]' then 'bytea' else 'text' end,
            case kind when 'bytea[]' then '(ended).result' else format('pg_catalog.convert_from((ended).result, %L)', encoding) end,
            encoding);
        execute format('comment on function gman_do_many(text, %s, text[], integer, interval) is %L', kind,
            'postgear: run many jobs at a time, return their results as they end '
            '(function, workloads [, uniques] [, in_flight] [, timeout])');
    end loop;
end
$make$;
