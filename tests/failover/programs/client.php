<?php
// A GearmanClient of several servers. Usage: client.php HOST:PORT,HOST:PORT TIMEOUT_MILLISECONDS
// Lines in: "do TEXT" or "bg TEXT". Lines out: "ok RESULT" or "error WHY".
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
while (($line = fgets(STDIN)) !== false) {
    [$what, $text] = explode(' ', rtrim($line, "\n"), 2);
    try {
        $result = $what === 'do' ? @$client->doNormal('reverse', $text) : @$client->doBackground('reverse', $text);
        echo $client->returnCode() === GEARMAN_SUCCESS ? "ok $result\n" : 'error ' . $client->error() . "\n";
    } catch (Throwable $error) {
        echo 'error ' . $error->getMessage() . "\n";
    }
}
