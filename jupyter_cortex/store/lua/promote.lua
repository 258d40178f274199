-- Make a starting deployment the live one; the one before it drains. ARGV: version, endpoint. Returns the version that drains, or 0; -1 when refused.
local n = ARGV[1]
local api = p .. ':api'
local dep = p .. ':dep:' .. n
if redis.call('HGET', dep, 'state') ~= 'starting' then return -1 end
local before = redis.call('HGET', api, 'live')
needs_no_memory()
redis.call('HSET', dep, 'state', 'live', 'live_at', now)
redis.call('HSET', api, 'live', n, 'gate', 'open', 'spec', redis.call('HGET', dep, 'spec'), 'endpoint', ARGV[2], 'updated', now)
event('deployment', n .. ' live')
if before and before ~= n then
  redis.call('HSET', p .. ':dep:' .. before, 'state', 'draining', 'draining_at', now)
  event('deployment', before .. ' draining')
  flush()
  return tonumber(before)
end
flush()
return 0
