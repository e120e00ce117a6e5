-- Every function is there, documented, and finds its arguments' types.
\set VERBOSITY terse
set client_min_messages = warning;
create extension plpython3u;
create extension postgear;

select p.proname, count(*) as overloads, bool_and(obj_description(p.oid, 'pg_proc') like 'postgear: %') as commented
from pg_depend d join pg_proc p on p.oid = d.objid
where d.deptype = 'e' and d.refobjid = (select oid from pg_extension where extname = 'postgear') and p.proname like 'gman\_%'
group by 1 order by 1;

-- Which overload a call takes, by the type of its result and the plan.
create function resolves(call text) returns text language plpgsql as $$
declare
    line text;
    lines text := '';
begin
    for line in execute 'explain (verbose, costs off) select ' || call loop
        lines := lines || line;
    end loop;
    return case when lines ~ 'gman_' then 'resolves' end;
end
$$;
select call, resolves(call)
from unnest(array[
    $$gman_do_background('f', 'x')$$,
    $$gman_do_background('f', NULL)$$,
    $$gman_do_background('f', row_to_json(row(1)))$$,
    $$gman_do_background('f', to_jsonb(1))$$,
    $$gman_do_background('f', '\x00'::bytea)$$,
    $$gman_do_background('f', 'x', 'unique')$$,
    $$gman_do_background('f', 'x', NULL, now())$$,
    $$gman_do_background('f', 'x', run_at => '2030-01-01')$$,
    $$gman_do_low_background('f', 'x'::varchar)$$,
    $$gman_do_epoch('f', 'x', 1)$$,
    $$gman_do_epoch('f', NULL, NULL, NULL)$$,
    $$gman_do('f', 'x')$$,
    $$gman_do('f', NULL)$$,
    $$gman_do('f', 'x', 'unique', '5 s')$$,
    $$gman_do('f', 'x', timeout => '5 s')$$,
    $$gman_do_high('f', to_jsonb(1))$$,
    $$gman_do_many('f', '{a,b}')$$,
    $$gman_do_many('f', NULL)$$,
    $$gman_do_many('f', array['a'])$$,
    $$gman_do_many('f', array['\x00'::bytea], timeout => '5 s')$$,
    $$gman_sum('f', 'x')$$,
    $$gman_sum('f', NULL, 'unique')$$,
    $$gman_sum('f', '\x00'::bytea)$$
]) with ordinality as calls (call, n)
order by n;
drop function resolves(text);

select pg_typeof(gman_sum('f', 'x')) from generate_series(1, 0);
