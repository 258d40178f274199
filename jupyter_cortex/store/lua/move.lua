-- Move a deployment to another state. ARGV: version, comma-separated states it may be in, new state, then field/value pairs. Returns 1 or 0.
local dep = p .. ':dep:' .. ARGV[1]
local state = redis.call('HGET', dep, 'state')
if not state or not string.find(',' .. ARGV[2] .. ',', ',' .. state .. ',', 1, true) then return 0 end
needs_no_memory()
redis.call('HSET', dep, 'state', ARGV[3], ARGV[3] .. '_at', now)
for i = 4, #ARGV, 2 do redis.call('HSET', dep, ARGV[i], ARGV[i + 1]) end
if ARGV[3] == 'stopped' or ARGV[3] == 'failed' then redis.call('SREM', p .. ':active', ARGV[1]) end
event('deployment', ARGV[1] .. ' ' .. ARGV[3])
flush()
return 1
