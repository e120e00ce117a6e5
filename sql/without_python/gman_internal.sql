-- What speaks Gearman in the set with PL/Python raises 0A000 here: SQL alone opens no connections.
--
-- The same names and signatures as in pg_extension/functions/, for the gman_* functions of sql/functions/ call them.
do $make$
declare
    signature text;
    result text;
begin
    for signature, result in values
        ('gman_wait(function_name bytea, workload bytea, unique_key bytea, priority smallint, timeout double precision)', 'bytea'),
        ('gman_send(function_name bytea, workload bytea, unique_key bytea, priority smallint, run_at timestamptz)', 'text'),
        ('gman_wait_many(function_name bytea, workloads bytea[], unique_keys bytea[], in_flight integer, timeout double precision)',
            'table (ordinality bigint, result bytea, error text)'),
        ('gman_sum_queue(state bigint, function_name bytea, workload bytea, unique_key bytea)', 'bigint'),
        ('gman_check()', 'table (server text, reachable boolean, version text, milliseconds double precision, error text)'),
        ('gman_ask_status(handle text)', 'table (known boolean, running boolean, numerator bigint, denominator bigint)'),
        ('gman_ask_cancel(handle text)', 'boolean'),
        ('gman_normalize_servers(servers text)', 'text')
    loop
        execute format($create$
            create or replace function %1$s returns %2$s
            language plpgsql
            as $body$
            begin
                raise feature_not_supported using
                    message = 'postgear: speaking to a Gearman server from SQL needs PL/Python',
                    hint = 'Install plpython3u on the database server, then run `postgear init` again.';
            end
            $body$;
            $create$, signature, result);
        execute format('comment on function %s is %L',
            (select oid::regprocedure from pg_proc
             where proname = split_part(signature, '(', 1) and pronamespace = '@extschema@'::regnamespace),
            'postgear: internal, needs PL/Python');
    end loop;
end
$make$;
create or replace function gman_sum_end(state bigint) returns bigint
language sql
as $$
-- Internal: the sum of no rows; with rows there was an error before.
select null::pg_catalog.int8
$$;
comment on function gman_sum_end(bigint) is 'postgear: internal, the end of gman_sum';
