-- Who may call the gman_* functions: postgear_producer, and for gman_cancel postgear_admin; not PUBLIC.
--
-- Without these roles only the owner and superusers may, until `postgear init` could make the roles. Applied after the
-- functions, by `postgear init` and in the extension's script.
do $$
declare
    routine record;
begin
    for routine in
        select oid::regprocedure as signature,
            case when proname = 'gman_cancel' then 'postgear_admin' else 'postgear_producer' end as role_name
        from pg_proc
        where proname like 'gman\_%' and pronamespace = '@extschema@'::regnamespace
            and obj_description(oid, 'pg_proc') like 'postgear:%'
    loop
        execute format('revoke execute on routine %s from public', routine.signature);
        if to_regrole('postgear_producer') is not null and to_regrole('postgear_admin') is not null then
            execute format('revoke execute on routine %s from postgear_producer', routine.signature);
            execute format('grant execute on routine %s to %I', routine.signature, routine.role_name);
        end if;
    end loop;
end
$$;
