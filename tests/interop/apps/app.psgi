# The endpoint behind Starman and plackup, a PSGI application.
use strict;
use warnings;

sub {
    my ($env) = @_;
    open my $record, '>>', $ENV{INTEROP_RECORD} or die $!;
    syswrite $record, ($env->{HTTP_IDEMPOTENCY_KEY} // '') . "\n";
    close $record;
    $env->{'psgi.input'}->read(my $body, $env->{CONTENT_LENGTH} || 0)
        unless $env->{PATH_INFO} eq '/unread';
    return [200, ['Content-Type' => 'text/plain', 'Content-Length' => 2], ['ok']];
};
