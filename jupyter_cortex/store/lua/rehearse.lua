-- Record a deployment that runs kept workloads in the shadow and does not go live by itself; one that nobody has decided on makes room.
-- ARGV: spec, spec hash, handler hash, source, take over (1|0), replicas, then field/value pairs of the deployment.
-- Returns {outcome, version, detail}: rehearsing | source | deleting | unknown.
local spec, source = ARGV[1], ARGV[4]
local api = p .. ':api'
local old = redis.call('HMGET', api, 'source', 'next')
if redis.call('EXISTS', p .. ':deleting') == 1 then return {'deleting', 0, ''} end
if not old[2] then return {'unknown', 0, ''} end
if old[1] and old[1] ~= source and ARGV[5] ~= '1' then return {'source', 0, old[1]} end
local n = tonumber(old[2]) + 1
local dep = p .. ':dep:' .. n
redis.call('HSET', dep, 'state', 'rehearsing', 'spec', spec, 'spec_hash', ARGV[2], 'handler_hash', ARGV[3], 'source', source,
  'replicas', ARGV[6], 'created', now)
for i = 7, #ARGV, 2 do redis.call('HSET', dep, ARGV[i], ARGV[i + 1]) end
for _, v in ipairs(redis.call('SMEMBERS', p .. ':active')) do
  local state = redis.call('HGET', p .. ':dep:' .. v, 'state')
  if state == 'rehearsing' or state == 'rehearsed' then
    redis.call('HSET', p .. ':dep:' .. v, 'state', 'stopped', 'stopped_at', now)
    redis.call('SREM', p .. ':active', v)
    redis.call('UNLINK', p .. ':rehearsal:' .. v, p .. ':report:' .. v)
    event('deployment', v .. ' stopped')
  end
end
redis.call('SADD', p .. ':active', n)
redis.call('HSET', api, 'next', n, 'rehearsed', n)
event('deployment', n .. ' rehearsing')
flush()
return {'rehearsing', n, ''}
