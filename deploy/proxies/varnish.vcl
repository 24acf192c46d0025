# Varnish in front of callme, behind something that terminates TLS.
# callme listens on 127.0.0.1:6777 and has a --token-file and
# --origin=https://callme.example.com. varnishd has the option
# -p backend_idle_timeout=50, shorter than the 60 seconds after which callme closes an idle
# connection.
vcl 4.1;

backend callme {
    .host = "127.0.0.1";
    .port = "6777";
    # Longer than the longest wait of 55 seconds.
    .first_byte_timeout = 75s;
}

sub vcl_recv {
    # Cache nothing: a response describes one moment.
    return (pass);
}
