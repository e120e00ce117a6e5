<?php
// A GearmanClient of several servers. Usage: client.php HOST:PORT,HOST:PORT TIMEOUT_MILLISECONDS
// Lines in: "do TEXT" or "bg TEXT". Lines out: "ok RESULT" or "error WHY".
function connect(): GearmanClient {
    global $argv;
    $client = new GearmanClient();
    foreach (explode(',', $argv[1]) as $server) {
        [$host, $port] = explode(':', $server);
        try {
            $client->addServer($host, (int) $port);
        } catch (GearmanException) {
            // It asks the server at once for an option, and throws if it is away; the server is in the list all the same.
        }
    }
    $client->setTimeout((int) $argv[2]);
    return $client;
}

$client = connect();
while (($line = fgets(STDIN)) !== false) {
    [$what, $text] = explode(' ', rtrim($line, "\n"), 2);
    try {
        $result = $what === 'do' ? @$client->doNormal('reverse', $text) : @$client->doBackground('reverse', $text);
        echo $client->returnCode() === GEARMAN_SUCCESS ? "ok $result\n" : 'error ' . $client->error() . "\n";
        if ($client->returnCode() === GEARMAN_TIMEOUT) {
            // With connections to two servers libgearman may wait at the wrong one for its first answer (as with two gearmands),
            // and then takes that answer, when it comes, for the next job's.
            $client = connect();
        }
    } catch (Throwable $error) {
        echo 'error ' . $error->getMessage() . "\n";
    }
}
