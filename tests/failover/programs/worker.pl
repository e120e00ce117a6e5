# A Gearman::Worker at several servers: reverse. Usage: worker.pl HOST:PORT,HOST:PORT
use strict;
use warnings;
use Gearman::Worker;

my $worker = Gearman::Worker->new(job_servers => [split /,/, $ARGV[0]]);
$worker->register_function(reverse => sub { return scalar reverse $_[0]->arg; });
$worker->work while 1;
