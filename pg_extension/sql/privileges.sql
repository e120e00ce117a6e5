-- PUBLIC may call nothing, postgear_producer all but gman_cancel, postgear_admin that.
set client_min_messages = error;
create role regress_gman_nobody;
drop extension postgear;
do $$
declare
    role_name text;
begin
    foreach role_name in array array['postgear_producer', 'postgear_admin'] loop
        if to_regrole(role_name) is null then
            execute format('create role %I nologin', role_name);
        end if;
    end loop;
end
$$;
create extension postgear;
select role_name,
    array_agg(distinct proname) filter (where has_function_privilege(role_name, p.oid, 'execute')) as may,
    array_agg(distinct proname) filter (where not has_function_privilege(role_name, p.oid, 'execute')) as may_not
from pg_proc p, (values ('regress_gman_nobody'), ('postgear_producer')) as roles (role_name)
where proname in (
    'gman_do', 'gman_do_background', 'gman_do_many', 'gman_sum', 'gman_status', 'gman_result', 'gman_cancel', 'gman_servers_set'
)
group by 1 order by 1;
drop role regress_gman_nobody;

-- Everything goes with the extension.
drop extension postgear;
select count(*) from pg_proc where proname like 'gman\_%';
