# Ruby's Net::HTTP. Arguments: METHOD URL [TYPE FILE].
require 'net/http'

method, url, type, file = ARGV
uri = URI(url)
request = Net::HTTP.const_get(method.capitalize).new(uri)
request.body = File.read(file) if file
request['Content-Type'] = type unless type.to_s.empty?
puts Net::HTTP.start(uri.host, uri.port) { |http| http.request(request) }.code
