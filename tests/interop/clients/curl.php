<?php
// PHP's curl. Arguments: METHOD URL [TYPE FILE].
[, $method, $url, $type, $file] = $argv + [3 => '', 4 => ''];
$request = curl_init($url);
curl_setopt_array($request, [CURLOPT_CUSTOMREQUEST => $method, CURLOPT_RETURNTRANSFER => true]);
if ($file !== '') {
    curl_setopt($request, CURLOPT_POSTFIELDS, file_get_contents($file));
}
if ($type !== '') {
    curl_setopt($request, CURLOPT_HTTPHEADER, ["Content-Type: $type"]);
}
curl_exec($request);
echo curl_getinfo($request, CURLINFO_RESPONSE_CODE), "\n";
