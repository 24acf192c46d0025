<?php
// The endpoint behind `php -S`.
file_put_contents(
    getenv('INTEROP_RECORD'),
    ($_SERVER['HTTP_IDEMPOTENCY_KEY'] ?? '') . "\n",
    FILE_APPEND | LOCK_EX
);
header('Content-Type: text/plain');
if ($_SERVER['REQUEST_URI'] !== '/unread') {
    file_get_contents('php://input');
}
echo 'ok';
