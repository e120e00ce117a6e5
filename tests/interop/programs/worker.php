<?php
// A GearmanWorker: reverse, talk, fail, throw. Usage: worker.php HOST PORT
$worker = new GearmanWorker();
$worker->addServer($argv[1], (int) $argv[2]);
$worker->addFunction('reverse', fn (GearmanJob $job) => strrev($job->workload()));
$worker->addFunction('talk', function (GearmanJob $job) {
    $job->sendData('part');
    $job->sendWarning('careful');
    $job->sendStatus(1, 2);
    return 'whole';
});
$worker->addFunction('fail', fn (GearmanJob $job) => $job->sendFail());
$worker->addFunction('throw', fn (GearmanJob $job) => $job->sendException('oops'));
while (true) {
    @$worker->work();
}
