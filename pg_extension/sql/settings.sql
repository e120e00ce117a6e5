-- gman_servers_set and the settings it sets.
\set VERBOSITY terse
\set SHOW_CONTEXT never
create view settings as
select nullif(current_setting('gman.servers', true), '') as servers,
    nullif(current_setting('gman.function_servers', true), '') as function_servers;
select * from settings;
select gman_servers_set(' one , two:4731,[::1]:4732, [fe80::1]');
select * from settings;
select gman_servers_set('three', 'resize'), gman_servers_set('four:1', 'it''s "odd"');
select * from settings;
select gman_servers_set('', 'resize');
select * from settings;
select gman_servers_set(null, 'it''s "odd"'), gman_servers_set('');
select * from settings;

-- Undone with the transaction.
begin;
select gman_servers_set('one');
rollback;
select * from settings;

-- What is no list of servers.
select gman_servers_set('one two');
select gman_servers_set('one:port');
select gman_servers_set('one:0');
select gman_servers_set('::1');
select gman_servers_set('one:1', null), gman_servers_set(null, null);
drop view settings;
