create function gman_do_high_background(
    function_name varchar(1024) character set utf8mb4, job_workload longblob, job_unique varchar(1024) character set utf8mb4
) returns bigint
    -- It is not, but servers with a binary log take no function that says so; the log then holds rows, not statements.
    deterministic
    modifies sql data
    sql security definer
    comment 'postgear: queue a job of high priority with this transaction; its row in postgear_outbox'
begin
    insert into postgear_outbox (`function`, workload, unique_key, priority)
    values (function_name, coalesce(job_workload, ''), nullif(job_unique, ''), 0);
    return last_insert_id();
end
