# Perl's own HTTP::Tiny. Arguments: METHOD URL [TYPE FILE].
use strict;
use warnings;
use HTTP::Tiny;

my ($method, $url, $type, $file) = @ARGV;
my %options;
$options{headers} = { 'Content-Type' => $type } if $type;
if ($file) {
    open my $in, '<:raw', $file or die $!;
    local $/;
    $options{content} = <$in>;
}
print HTTP::Tiny->new->request($method, $url, \%options)->{status}, "\n";
