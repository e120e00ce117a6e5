create function gman_do_epoch(
    function_name varchar(1024) character set utf8mb4, job_workload longblob, epoch bigint,
    job_unique varchar(1024) character set utf8mb4
) returns bigint
    deterministic
    modifies sql data
    sql security definer
    comment 'postgear: queue a job that starts not before a Unix time, with this transaction; its row in postgear_outbox'
begin
    insert into postgear_outbox (`function`, workload, unique_key, run_at)
    values (function_name, coalesce(job_workload, ''), nullif(job_unique, ''), nullif(greatest(epoch, 0), 0));
    return last_insert_id();
end
