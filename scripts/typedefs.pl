#!/usr/bin/perl
# typedefs.pl [file…]
#
# Prints the names that "typedef" declares in C files (those of src/ and test/
# unless some are named), sorted: the repository's typedefs.list.
use strict;
use warnings;
use FindBin;

my @files = @ARGV ? @ARGV : grep { -f } map { glob("$FindBin::Bin/../$_") } qw(src/*.[ch] src/*/*.[ch] test/*.c bench/*.c);
my $braces = qr/(\{(?:[^{}]++|(?-1))*\})/;
my %names;
for my $file (@files) {
	open my $in, '<', $file or die "$file: $!\n";
	local $/;
	my $text = <$in>;
	$text =~ s{/\*.*?\*/}{ }gs;
	$text =~ s/"(?:\\.|[^"\\\n])*"/""/g;
	$text =~ s/^\s*#(?:.*\\\n)*.*$//gm;
	while ($text =~ /\btypedef\b((?:[^;{}]|$braces)*);/g) {
		my $declared = $1;
		$declared =~ s/$braces/ /g;
		if ($declared =~ /\(\s*\*\s*(\w+)\s*\)/ || $declared =~ /(\w+)\s*\(/) { $names{$1} = 1 }
		else { /(\w+)\s*(?:\[[^\]]*\]\s*)?$/ and $names{$1} = 1 for split /,/, $declared }
	}
}
print "$_\n" for sort keys %names;
