create function gman_servers_set(servers text character set utf8mb4) returns text character set utf8mb4
    deterministic
    no sql
    sql security definer
    comment 'postgear: sets nothing, for the outbox knows no servers; so that calls from the time of the loaded functions go on'
return servers;
