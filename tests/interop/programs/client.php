<?php
// A GearmanClient. Usage: client.php HOST PORT WHAT [ARGUMENT]
[, $host, $port, $what] = $argv;
$argument = $argv[4] ?? '';
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$client->setTimeout(10000);

switch ($what) {
    case 'reverse':
    case 'reverse-high':
    case 'reverse-low':
        $workload = stream_get_contents(STDIN);
        $method = ['reverse' => 'doNormal', 'reverse-high' => 'doHigh', 'reverse-low' => 'doLow'][$what];
        $result = $client->$method('reverse', $workload);
        if ($client->returnCode() !== GEARMAN_SUCCESS) {
            fwrite(STDERR, $client->error());
            exit(1);
        }
        echo $result;
        break;
    case 'exceptions':
        $client->enableExceptionHandler();
        // no break
    case 'tasks':
        $client->setCreatedCallback(function (GearmanTask $task) { echo 'created ', (int) ($task->jobHandle() !== ''), "\n"; });
        $client->setDataCallback(function (GearmanTask $task) { echo 'data ', $task->data(), "\n"; });
        $client->setWarningCallback(function (GearmanTask $task) { echo 'warning ', $task->data(), "\n"; });
        $client->setStatusCallback(function (GearmanTask $task) { echo "status {$task->taskNumerator()}/{$task->taskDenominator()}\n"; });
        $client->setCompleteCallback(function (GearmanTask $task) { echo 'complete ', $task->data(), "\n"; });
        $client->setExceptionCallback(function (GearmanTask $task) { echo 'exception ', $task->data(), "\n"; });
        $client->setFailCallback(function (GearmanTask $task) { echo "fail\n"; });
        $client->addTask($argument, 'x');
        @$client->runTasks();
        break;
    case 'background':
        $client->doBackground('later', 'normal', 'unique-n');
        $client->doHighBackground('later', 'high', 'unique-h');
        $handle = $client->doLowBackground('later', 'low', 'unique-l');
        echo 'joined ', (int) ($client->doLowBackground('later', 'again', 'unique-l') === $handle), "\n";
        echo 'status ', json_encode($client->jobStatus($handle)), "\n";
        echo 'by unique ', json_encode($client->jobStatusByUniqueKey('unique-h')), "\n";
        break;
    case 'ping':
        exit($client->ping('ping') ? 0 : 1);
}
