# Debian's OAuth clients of Ruby, unmodified: what each does when its token was revoked. run.py calls it with the versions and
# the file that names the server, an API and a client.
require 'json'
require 'net/http'
require 'oauth2'
require 'rack/oauth2'

VERSIONS = JSON.parse(ARGV[0])
names = JSON.parse(File.read(ARGV[1]))
URL, API, LIFETIME = names.values_at('url', 'api', 'lifetime')
KEY, SECRET = names['app'].values_at('api_key', 'api_secret')
EARLY = [60, 30, 20, 10, 0].freeze

# The libraries' clock.
class Time
  class << self
    attr_accessor :ahead
    alias real now
    def now(...)
      real(...) + ahead
    end
  end
  self.ahead = 0
end

def log_out
  json = { 'Content-Type' => 'application/json' }
  body = JSON.dump(username: KEY, password: SECRET)
  token = JSON.parse(Net::HTTP.post(URI("#{URL}/auth/login"), body, json).body)['data']['access_token']
  answer = Net::HTTP.post(URI("#{URL}/auth/logout"), '', 'Authorization' => "Bearer #{token}")
  raise answer.body if answer.code != '200'
end

# Each has a binding with its names, the call, which returns a status, and the recipe, a line that is run in that binding.
# Neither keeps a token by itself: the call is what their documentation has for one that the caller keeps.
def oauth2
  client = OAuth2::Client.new(KEY, SECRET, site: URL, token_url: '/oauth2/token')
  token = client.client_credentials.get_token
  call = lambda do
    token = client.client_credentials.get_token if token.expired?
    token.get(API, raise_errors: false).status
  end
  [binding, call, 'token = client.client_credentials.get_token']
end

def rack_oauth2
  client = Rack::OAuth2::Client.new(identifier: KEY, secret: SECRET, token_endpoint: "#{URL}/oauth2/token")
  token = client.access_token!
  call = -> { token.get(API).status }
  [binding, call, 'token = client.access_token!']
end

def passes(call, seconds = 0)
  Time.ahead = seconds
  call.call.to_i == 200
rescue StandardError
  false
ensure
  Time.ahead = 0
end

def measure(call)
  raise "it does not work at all: #{call.call}" unless passes(call)

  log_out
  return 'recovers on the same call' if passes(call)
  return 'recovers on the next call' if passes(call)

  EARLY.each do |early|
    raise "recovers more than #{early} s before the end, at none of the known times" if passes(call, LIFETIME - early - 5)
    next unless passes(call, LIFETIME - early + 1)

    return early.zero? ? 'dead until the token expires' : "dead until #{early} s before the token expires"
  end
  raise 'recovers long after the end' if passes(call, LIFETIME + 3600)

  'dead, also when the token has expired'
end

{ 'Ruby oauth2' => :oauth2, 'Ruby rack-oauth2' => :rack_oauth2 }.each do |label, make|
  around, call, recipe = send(make)
  found = measure(call)
  log_out
  around.eval(recipe)
  raise 'its recipe does not help' unless passes(call)

  puts JSON.dump(label: label, version: VERSIONS[label], found: found, recipe: recipe)
rescue StandardError => e
  puts JSON.dump(label: label, failed: e.inspect)
end
