# SPDX-License-Identifier: MIT
# Hashes of arrays, strings split, joined and replaced, made and dropped.  A percentage of work is the argument.
use strict;
use warnings;

my ($state, $total) = (1, 0);

sub number {
	$state = ($state * 1103515245 + 12345) % 2147483648;
	return ($state >> 8) % $_[0];
}

my @kept;
for my $turn (1 .. $ARGV[0] / 5) {
	my %table;
	for (1 .. 6000) {
		my $key = join '-', map { number(1000) } 1 .. 1 + number(3);
		push @{$table{$key}}, { id => $_, text => 'x' x number(60) };
	}
	my $line = join ',', map { "$_=" . scalar @{$table{$_}} } sort keys %table;
	$line =~ s/(\d+)-(\d+)/$2:$1/g;
	my %back = map { split /=/, $_, 2 } split /,/, $line;
	$total += length($line) + keys %back;
	push @kept, \%table;
	splice @kept, number(scalar @kept), 1 if @kept > 5;
}
print "$total\n";
