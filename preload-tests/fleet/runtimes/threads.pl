# Perl's interpreter threads: locks, conditions, queues, children and sockets. Prints what it has counted.
use strict;
use warnings;
use threads;
use threads::shared;
use Thread::Queue;
use Thread::Semaphore;
use IO::Socket::INET;

my $count : shared = 0;
my @all = map {
    threads->create(sub { for (1 .. 500) { lock($count); $count++ } $_[0] * 2 }, $_)
} 1 .. 20;
my $sum = 0;
$sum += $_->join for @all;
print "count $count sum $sum\n";

my ($in, $out) = (Thread::Queue->new, Thread::Queue->new);
@all = map {
    threads->create(sub { while (defined(my $x = $in->dequeue)) { $out->enqueue($x * $x) } })
} 1 .. 6;
$in->enqueue($_) for 1 .. 300;
$in->end;
$_->join for @all;
$sum = 0;
$sum += $out->dequeue for 1 .. 300;
print "squares $sum\n";

my $turn : shared = 0;
my $other = threads->create(sub {
    for (1 .. 300) { lock($turn); cond_wait($turn) while $turn % 2 == 0; $turn++; cond_signal($turn) }
});
for (1 .. 300) { lock($turn); $turn++; cond_signal($turn); cond_wait($turn) while $turn % 2 == 1 }
$other->join;
print "turns $turn\n";

my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1') or die;
my $server = threads->create(sub {
    for (1 .. 10) {
        my $k = $listener->accept;
        threads->create(sub { while (defined(my $x = <$k>)) { print $k $x; $k->flush } })->detach;
    }
});
@all = map {
    threads->create(sub {
        my $k = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport) or return 0;
        my $same = 0;
        for (1 .. 30) { print $k "$_[0] $_\n"; $k->flush; $same++ if <$k> eq "$_[0] $_\n" }
        $same
    }, $_)
} 1 .. 10;
$sum = 0;
$sum += $_->join for @all;
$server->join;
print "echoes $sum\n";

my $ready = Thread::Semaphore->new(0);
my $killed = threads->create(sub { $SIG{KILL} = sub { threads->exit }; $ready->up; sleep 1 while 1 });
$ready->down;
$killed->kill('KILL')->join;

@all = map {
    threads->create(sub {
        my $said = `echo $_[0]`;
        my $pid = fork;
        if (!$pid) { require POSIX; POSIX::_exit($_[0]) }
        waitpid $pid, 0;
        $said + ($? >> 8)
    }, $_)
} 1 .. 8;
$sum = 0;
$sum += $_->join for @all;
print "children $sum\n";

my $dies = threads->create({context => 'list'}, sub { close STDERR; die "oops\n" });
$dies->join;
print "died of ", $dies->error;
$SIG{ALRM} = sub { die "alarm\n" };
eval { alarm 1; sleep 100; 1 };
print "woken by $@";
