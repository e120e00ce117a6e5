-- Run once at the leader, as postgres, after `postgear init`: the role of the servers.
create role gear_server login password 'change-me-4';
grant postgear_worker to gear_server;
