-- Send a rehearsed deployment on its way to live. ARGV: version, force (1|0), replicas, what the audit says beside time and version (JSON members).
-- Returns {word, detail}: ok | state | busy.
local n, force = ARGV[1], ARGV[2] == '1'
local api, dep = p .. ':api', p .. ':dep:' .. ARGV[1]
local state = redis.call('HGET', dep, 'state')
if state ~= 'rehearsed' then return {'state', state or 'unknown'} end
local wanted = redis.call('HGET', api, 'wanted')
local going = wanted and redis.call('HGET', p .. ':dep:' .. wanted, 'state')
if going == 'pending' or going == 'starting' then
  if not force then return {'busy', wanted} end
  redis.call('HSET', p .. ':dep:' .. wanted, 'state', 'stopped', 'stopped_at', now)
end
redis.call('HSET', dep, 'state', 'pending', 'replicas', ARGV[3])
redis.call('HSET', api, 'wanted', n, 'source', redis.call('HGET', dep, 'source'), 'updated', now)
event('deployment', n .. ' pending')
redis.call('LPUSH', p .. ':audit', '{"at": ' .. now .. ARGV[4] .. ', "version": ' .. n .. '}')
redis.call('LTRIM', p .. ':audit', 0, AUDITS - 1)
flush()
return {'ok', ''}
