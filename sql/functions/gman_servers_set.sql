create or replace function gman_servers_set(servers text, function_name text default null) returns boolean
language plpgsql
volatile
as $$
-- Set the Gearman servers of this session, or with function_name those of that function alone. Returns true.
--
-- servers: 'host:port,host:port', tried in this order; the port may be left out (4730), IPv6 stands in brackets.
-- Null or '': the default again, which is the queue in this database. Undone if the transaction rolls back.
-- For all sessions: alter database ... set gman.servers = '...'.  Errors: 22023 for what is no list of addresses.
declare
    known text := pg_catalog.current_setting('gman.function_servers', true);
    by_function pg_catalog.jsonb;
begin
    if coalesce(servers, '') operator(pg_catalog.<>) '' then
        servers := @extschema@.gman_normalize_servers(servers);
    end if;
    if function_name is null then
        perform pg_catalog.set_config('gman.servers', coalesce(servers, ''), false);
        return true;
    end if;
    by_function := case when known operator(pg_catalog.<>) '' then known::pg_catalog.jsonb else '{}' end;
    if coalesce(servers, '') operator(pg_catalog.=) '' then
        by_function := by_function operator(pg_catalog.-) function_name;
    else
        by_function := by_function operator(pg_catalog.||) pg_catalog.jsonb_build_object(function_name, servers);
    end if;
    perform pg_catalog.set_config(
        'gman.function_servers', case when by_function operator(pg_catalog.=) '{}' then '' else by_function::pg_catalog.text end, false
    );
    return true;
end
$$;
comment on function gman_servers_set(text, text) is 'postgear: set the Gearman servers of this session (servers [, function])';
