#!/usr/bin/perl
# clicks.pl json|insert [events per second [stream [times]]]
#
# A click stream of a small shop, as JSON lines or as INSERT statements: a few
# countries at different hours, visitors who click more than they buy.  times:
# begins with an hour ago and goes on so many times as fast, until it is now.
use strict;
use warnings;
use POSIX qw(strftime);
use Time::HiRes qw(time sleep);

my ($form, $rate, $stream, $times) = (shift // 'json', shift // 200, shift // 'clicks', shift // 1);
my $start = time;
# the shop's clock
sub clock { my $t = $start - 3600 + (time - $start) * $times; return $times > 1 && $t < time ? $t : time }
my @countries = (('KR') x 5, ('US') x 4, ('JP') x 3, ('DE') x 2, 'BR');
my @pages = map { "/products/$_" } 1 .. 40;
$| = 1;
while (1) {
	my $begun = time;
	# traffic comes and goes
	my $n = int($rate / 10 * (1 + 0.6 * sin($begun / 7)) + rand(3));
	my @rows;
	for (1 .. $n) {
		my $t = clock();
		my $ts = strftime('%Y-%m-%dT%H:%M:%S', gmtime $t) . sprintf('.%03dZ', ($t - int $t) * 1000);
		my $action = rand() < 0.06 ? 'purchase' : rand() < 0.25 ? 'view' : 'click';
		my $value = $action eq 'purchase' ? 5 + int rand 95 : 0;
		my $user = 'u-' . int(2000 * rand() ** 2);
		my ($country, $page) = ($countries[rand @countries], $pages[40 * rand() ** 2]);
		push @rows, $form eq 'json'
			? qq({"timestamp":"$ts","user_id":"$user","action":"$action","page":"$page","device":"mobile","country":"$country","value":$value}\n)
			: "('$ts','$user','$action','$page','$country',$value)";
	}
	if ($form eq 'json') { print @rows }
	elsif (@rows) { print "INSERT INTO $stream VALUES ", join(',', @rows), ";\n" }
	my $left = 0.1 - (time - $begun);
	sleep $left if $left > 0;
}
