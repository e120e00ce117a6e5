-- What speaks Gearman, for the gman_* functions of sql/functions/. Internal: they take bytes and seconds only.
--
-- A session loads the client at its first call and keeps it, with its connections, in GD.

create or replace function gman_wait(
    function_name bytea, workload bytea, unique_key bytea, priority smallint, timeout double precision
) returns bytea
language plpython3u
volatile
as $$
# Internal: run a job and return its result. Called by: gman_do and its kin.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.wait(function_name, workload, unique_key, priority, timeout)
$$;
comment on function gman_wait(bytea, bytea, bytea, smallint, double precision)
    is 'postgear: internal, runs a job for gman_do';

create or replace function gman_send(
    function_name bytea, workload bytea, unique_key bytea, priority smallint, run_at timestamptz
) returns text
language plpython3u
volatile
as $$
# Internal: submit a background job to the servers set; to the local queue where only another function has servers.
# Called by: gman_do_background and its kin.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.send(function_name, workload, unique_key, priority, run_at)
$$;
comment on function gman_send(bytea, bytea, bytea, smallint, timestamptz)
    is 'postgear: internal, sends a background job to a Gearman server';

create or replace function gman_wait_many(
    function_name bytea, workloads bytea[], unique_keys bytea[], in_flight integer, timeout double precision
) returns table (ordinality bigint, result bytea, error text)
language plpython3u
volatile
rows 100
as $$
# Internal: run a job for each workload, yield each one's end. Called by: gman_do_many.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.wait_many(function_name, workloads, unique_keys, in_flight, timeout)
$$;
comment on function gman_wait_many(bytea, bytea[], bytea[], integer, double precision)
    is 'postgear: internal, runs the jobs of gman_do_many';

create or replace function gman_sum_queue(
    state bigint, function_name bytea, workload bytea, unique_key bytea
) returns bigint
language plpython3u
volatile
as $$
# Internal: remember a job for a sum. Called by: gman_sum_add.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.sum_add(state, function_name, workload, unique_key)
$$;
comment on function gman_sum_queue(bigint, bytea, bytea, bytea) is 'postgear: internal, a row of gman_sum';

create or replace function gman_sum_end(state bigint) returns bigint
language plpython3u
volatile
as $$
# Internal: run the jobs of a sum and add up their results. Called by: gman_sum.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.sum_end(state)
$$;
comment on function gman_sum_end(bigint) is 'postgear: internal, the end of gman_sum';

create or replace function gman_check()
returns table (server text, reachable boolean, version text, milliseconds double precision, error text)
language plpython3u
volatile
as $$
# Internal: connect to each server. Called by: gman_servers_check.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.check()
$$;
comment on function gman_check() is 'postgear: internal, connects to each server for gman_servers_check';

create or replace function gman_ask_status(handle text)
returns table (known boolean, running boolean, numerator bigint, denominator bigint)
language plpython3u
volatile
as $$
# Internal: ask the servers set for a job. Called by: gman_status.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return [gman.status(handle)]
$$;
comment on function gman_ask_status(text) is 'postgear: internal, asks a Gearman server for gman_status';

create or replace function gman_ask_cancel(handle text) returns boolean
language plpython3u
volatile
as $$
# Internal: tell the servers set to cancel a job. Called by: gman_cancel.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.cancel(handle)
$$;
comment on function gman_ask_cancel(text) is 'postgear: internal, tells a Gearman server for gman_cancel';

create or replace function gman_normalize_servers(servers text) returns text
language plpython3u
volatile
as $$
# Internal: return a list of servers in one form, or raise 22023. Called by: gman_servers_set.
gman = GD.get("@runtime@") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["@runtime@"]
return gman.normalize_servers(servers)
$$;
comment on function gman_normalize_servers(text) is 'postgear: internal, reads the list of gman_servers_set';
