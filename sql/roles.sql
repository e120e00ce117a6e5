-- The roles, made where they are missing, and what each may do. Applied last: it speaks of all functions and views.
--
-- postgear_producer    queue jobs by SQL and ask for the state of one
-- postgear_worker      what a server does, or a worker that claims by SQL: all of the queue's tables and functions
-- postgear_admin       both, and triggers and the views
-- postgear_trigger     what the functions of triggers do, which belong to it: queue jobs; for no people
--
-- Members get these rights; the roles themselves cannot log in. PUBLIC has none.
do $$
declare
    role_name text;
    routine record;
    has_roles boolean;
begin
    foreach role_name in array array['postgear_producer', 'postgear_worker', 'postgear_admin', 'postgear_trigger'] loop
        begin
            -- Roles belong to the whole cluster: another database may have made them already.
            if to_regrole(role_name) is null then
                execute format('create role %I nologin', role_name);
            end if;
        exception
            when duplicate_object or unique_violation then
                null;  -- made in another database at the same moment
            when insufficient_privilege then
                raise notice 'postgear: role % was not made: %', role_name, sqlerrm
                using hint = 'Let an administrator make it, then run `postgear init` again.';
        end;
    end loop;
    select count(*) = 4 into has_roles
    from pg_roles where rolname in ('postgear_producer', 'postgear_worker', 'postgear_admin', 'postgear_trigger');

    revoke execute on all routines in schema postgear from public;
    if not has_roles then
        return;
    end if;
    revoke execute on all routines in schema postgear from postgear_producer, postgear_worker;  -- what another release gave

    if not (
        pg_has_role('postgear_admin', 'postgear_producer', 'member') and pg_has_role('postgear_admin', 'postgear_worker', 'member')
        and pg_has_role('postgear_admin', 'postgear_trigger', 'member')
    ) then
        begin
            grant postgear_producer, postgear_worker, postgear_trigger to postgear_admin;
        exception
            when insufficient_privilege then
                raise notice 'postgear: role postgear_admin has not the rights of the others: %', sqlerrm
                using hint = 'Let an administrator run: grant postgear_producer, postgear_worker, postgear_trigger to postgear_admin.';
        end;
    end if;
    grant usage on schema postgear to postgear_producer, postgear_worker, postgear_admin, postgear_trigger;
    grant select on postgear.queue to postgear_producer;
    for routine in
        select oid::regprocedure as signature,
            proname in (
                'queue_job', 'enqueue_jobs', 'submit_coalesced', 'handle_status', 'handle_result', 'handle', 'live_servers'
            ) as is_for_producers,
            proname ~ '^(trigger_|(create|drop)_trigger$)' as is_for_admins,
            proname in ('function_id', 'is_full', 'count_up_to', 'wake_servers', 'text_encoding') as is_for_triggers
        from pg_proc where pronamespace = 'postgear'::regnamespace
    loop
        execute format('grant execute on routine %s to postgear_admin', routine.signature);
        if not routine.is_for_admins then
            execute format('grant execute on routine %s to postgear_worker', routine.signature);
        end if;
        if routine.is_for_producers then
            execute format('grant execute on routine %s to postgear_producer', routine.signature);
        end if;
        if routine.is_for_triggers then
            execute format('grant execute on routine %s to postgear_trigger', routine.signature);
        end if;
    end loop;

    grant select, insert, update, delete on
        postgear.job, postgear.function, postgear.server, postgear.batch, postgear.result to postgear_worker;
    grant select, insert, update, delete on postgear.relay, postgear.relayed, postgear.imported to postgear_worker;
    grant select on postgear.queue, postgear.alembic_version, postgear.relays to postgear_worker;
    grant usage on sequence postgear.lease_seq to postgear_worker;

    grant select on postgear.jobs, postgear.workers, postgear.relays, postgear.triggers to postgear_admin;
    grant select, insert, update, delete on postgear.trigger to postgear_admin;
    grant usage, create on schema postgear_trigger to postgear_admin, postgear_trigger;
    grant select, insert, update on postgear.job, postgear.function to postgear_trigger;
    grant select on postgear.server to postgear_trigger;
end
$$;
