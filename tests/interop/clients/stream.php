<?php
// PHP's file_get_contents. Arguments: METHOD URL [TYPE FILE].
[, $method, $url, $type, $file] = $argv + [3 => '', 4 => ''];
$http = ['method' => $method, 'ignore_errors' => true];
if ($file !== '') {
    $http['content'] = file_get_contents($file);
}
if ($type !== '') {
    $http['header'] = "Content-Type: $type";
}
@file_get_contents($url, false, stream_context_create(['http' => $http]));
echo explode(' ', $http_response_header[0])[1], "\n";
