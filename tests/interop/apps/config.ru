# The endpoint behind Puma, a Rack application.
run lambda { |env|
  File.write(ENV['INTEROP_RECORD'], "#{env['HTTP_IDEMPOTENCY_KEY']}\n", mode: 'a')
  env['rack.input'].read unless env['PATH_INFO'] == '/unread'
  [200, { 'Content-Type' => 'text/plain' }, ['ok']]
}
