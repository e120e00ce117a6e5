# A Gearman::Client of several servers. Usage: client.pl HOST:PORT,HOST:PORT TIMEOUT_MILLISECONDS
# Lines in: "do TEXT" or "bg TEXT". Lines out: "ok RESULT" or "error WHY".
use strict;
use warnings;
use Gearman::Client;

my ($servers, $milliseconds) = @ARGV;
my $client = Gearman::Client->new(job_servers => [split /,/, $servers]);
$| = 1;
while (my $line = <STDIN>) {
    chomp $line;
    my ($what, $text) = split / /, $line, 2;
    my $result = eval {
        $what eq 'do'
            ? $client->do_task(reverse => $text, { timeout => $milliseconds / 1000 })
            : $client->dispatch_background(reverse => $text);
    };
    print defined $result ? 'ok ' . (ref $result ? $$result : $result) . "\n" : 'error ' . ($@ =~ s/\n.*//sr) . "\n";
}
