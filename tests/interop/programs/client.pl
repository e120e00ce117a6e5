# A Gearman::Client. Usage: client.pl HOST PORT WHAT [ARGUMENT]
use strict;
use warnings;
use Gearman::Client;

my ($host, $port, $what, $argument) = @ARGV;
my $client = Gearman::Client->new(job_servers => ["$host:$port"], exceptions => $what eq 'exceptions');
binmode STDIN;
binmode STDOUT;

if ($what eq 'reverse') {
    local $/;
    my $workload = <STDIN>;
    my $result = $client->do_task('reverse', $workload) or die 'failed';
    print $$result;
}
elsif ($what eq 'tasks' || $what eq 'exceptions') {
    my $set = $client->new_task_set;
    $set->add_task(
        $argument => 'x',
        {
            on_data => sub { my $data = shift; print 'data ', (ref $data ? $$data : $data), "\n"; },
            on_warning => sub { my $text = shift; print 'warning ', (ref $text ? $$text : $text), "\n"; },
            on_status => sub { print "status $_[0]/$_[1]\n"; },
            on_complete => sub { print "complete ${$_[0]}\n"; },
            on_exception => sub { print "exception $_[0]\n"; },
            on_fail => sub { print "fail\n"; },
        }
    );
    $set->wait(timeout => 10);
}
elsif ($what eq 'set') {
    my $set = $client->new_task_set;
    my @results;
    for my $number (1 .. 5) {
        $set->add_task(reverse => "n$number", { on_complete => sub { push @results, ${$_[0]} }, priority => 'high' });
    }
    $set->wait(timeout => 10);
    print "$_\n" for sort @results;
}
elsif ($what eq 'background') {
    my $handle;
    for my $priority (qw(normal high low)) {
        $handle = $client->dispatch_background(later => $priority, { uniq => "unique-$priority", priority => $priority });
    }
    my $again = $client->dispatch_background(later => 'again', { uniq => 'unique-low', priority => 'low' });
    print 'joined ', ($again eq $handle ? 1 : 0), "\n";
    my $status = $client->get_status($handle);
    print 'status ', $status->known, ' ', $status->running, "\n";
}
