# Varnish, with no more than it needs to proxy.
vcl 4.1;
backend callme {
    .host = "127.0.0.1";
    .port = "@CALLME@";
}
