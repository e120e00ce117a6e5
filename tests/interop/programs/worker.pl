# A Gearman::Worker: reverse, talk, fail. Usage: worker.pl HOST PORT
use strict;
use warnings;
use Gearman::Worker;

my ($host, $port) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => ["$host:$port"]);

$worker->register_function(reverse => sub { my $text = reverse $_[0]->arg; return $text; });
$worker->register_function(
    talk => sub {
        my $job = shift;
        $worker->send_work_data($job, 'part');
        $worker->send_work_warning($job, 'careful');
        $job->set_status(1, 2);
        return 'whole';
    }
);
$worker->register_function(fail => sub { return undef; });
$worker->register_function(throw => sub { my $job = shift; $worker->send_work_exception($job, 'oops'); return; });
$worker->work while 1;
