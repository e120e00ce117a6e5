-- What `postgear mysql install` makes in a database of MariaDB or MySQL. Statements end with a semicolon at the end of a line; each
-- must bear to be run again, for here no transaction holds changes of tables together.
create table if not exists postgear_schema (
    only_row    tinyint not null default 1 primary key,
    version     smallint not null,
    source      char(36) character set ascii not null comment 'which outbox this is, for the queue: it goes where the data goes'
) engine = InnoDB comment = 'postgear: the version of its tables and functions';

create table if not exists postgear_outbox (
    id              bigint not null auto_increment primary key,
    `function`      varchar(1024) character set utf8mb4 collate utf8mb4_bin not null,
    unique_key      varchar(1024) character set utf8mb4 collate utf8mb4_bin,
    priority        tinyint not null default 1 comment '0 high, 1 normal, 2 low',
    run_at          bigint comment 'Unix time in seconds; null: at once',
    until_claimed   tinyint not null default 0 comment '1: unique_key is for queued jobs only, as that of a trigger',
    workload        longblob not null,
    created_at      timestamp(6) not null default current_timestamp(6)
) engine = InnoDB comment = 'postgear: jobs on their way to the queue, which the relay moves there';

create table if not exists postgear_outbox_failed (
    number          bigint not null auto_increment primary key,
    id              bigint not null comment 'that of the row in postgear_outbox; there may be several after a TRUNCATE',
    `function`      varchar(1024) character set utf8mb4 collate utf8mb4_bin not null,
    unique_key      varchar(1024) character set utf8mb4 collate utf8mb4_bin,
    priority        tinyint not null,
    run_at          bigint,
    until_claimed   tinyint not null,
    workload        longblob not null,
    created_at      timestamp(6) not null,
    failed_at       timestamp(6) not null default current_timestamp(6),
    error           text character set utf8mb4 not null,
    key (id)
) engine = InnoDB comment = 'postgear: rows of postgear_outbox that can be no job, set aside by the relay';
