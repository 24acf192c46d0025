# Perl's LWP. Arguments: METHOD URL [TYPE FILE].
use strict;
use warnings;
use HTTP::Request;
use LWP::UserAgent;

my ($method, $url, $type, $file) = @ARGV;
my $request = HTTP::Request->new($method, $url);
$request->content_type($type) if $type;
if ($file) {
    open my $in, '<:raw', $file or die $!;
    local $/;
    $request->content(<$in>);
}
print LWP::UserAgent->new->request($request)->code, "\n";
