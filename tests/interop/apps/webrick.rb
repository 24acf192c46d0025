# WEBrick. Arguments: the port.
require 'webrick'

server = WEBrick::HTTPServer.new(
  BindAddress: '127.0.0.1', Port: ARGV[0].to_i, AccessLog: [], Logger: WEBrick::Log.new(File::NULL)
)
server.mount_proc('/') do |request, response|
  File.write(ENV['INTEROP_RECORD'], "#{request['Idempotency-Key']}\n", mode: 'a')
  request.body unless request.path == '/unread'
  response.body = 'ok'
end
trap('TERM') { server.shutdown }
server.start
