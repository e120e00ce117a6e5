<?php
// A GearmanWorker at several servers: reverse. Usage: worker.php HOST:PORT,HOST:PORT
$worker = new GearmanWorker();
$worker->addServers($argv[1]);
$worker->addFunction('reverse', fn (GearmanJob $job) => strrev($job->workload()));
// Without a time limit it looks after lost servers only when another has a job for it.
$worker->setTimeout(1000);
while (true) {
    if (!@$worker->work() && $worker->returnCode() === GEARMAN_NO_ACTIVE_FDS) {
        usleep(100000);
    }
}
