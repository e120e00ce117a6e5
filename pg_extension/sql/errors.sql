-- What goes wrong without a queue and without a Gearman server, and how it is told.
\set VERBOSITY terse
\set SHOW_CONTEXT never
create function attempt(call text) returns text language plpgsql as $$
declare
    result text;
begin
    execute 'select ' || call into result;
    return result;
exception when others then
    return sqlstate || ' ' || split_part(sqlerrm, e'\n', 1);
end
$$;
select call, attempt(call)
from unnest(array[
    $$gman_do('f', 'x')$$,
    $$gman_do(NULL, 'x')$$,
    $$gman_do(repeat('f', 513), 'x')$$,
    $$gman_do('f', 'x', repeat('u', 65))$$,
    $$gman_do_background('f', 'x')$$,
    $$gman_servers_set('127.0.0.1:1')$$,
    $$gman_do('f', 'x')$$,
    $$gman_do('f', 'x', timeout => '0')$$,
    $$gman_do('f', 'x', timeout => '-1 s')$$,
    $$gman_do_background('f', 'x')$$,
    $$gman_do_high_background('f', 'x', run_at => '2030-01-01')$$,
    $$gman_do_epoch('f', 'x', 1)$$,
    $$gman_do_background(NULL, 'x')$$,
    $$(select count(*) from gman_do_many('f', '{a,b}'))$$,
    $$(select count(*) from gman_do_many('f', '{}'))$$,
    $$(select count(*) from gman_do_many('f', 'no array'))$$,
    $$(select count(*) from gman_do_many('f', '{a}', '{u,v}'))$$,
    $$(select count(*) from gman_do_many('f', '{a}', in_flight => 0))$$,
    $$gman_sum('f', 'x')$$,
    $$(select gman_sum('f', 'x') from generate_series(1, 0))$$,
    $$(select known from gman_status('H:q:1'))$$,
    $$(select known from gman_status('no handle'))$$,
    $$gman_cancel('no handle')$$,
    $$(select count(*) from gman_result(NULL))$$,
    $$(select count(*) from gman_result('H:q:1'))$$,
    $$(select reachable from gman_servers_check())$$,
    $$gman_servers_set(NULL)$$
]) with ordinality as calls (call, n)
order by n;
drop function attempt(text);
