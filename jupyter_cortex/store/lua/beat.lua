-- A worker's heartbeat for itself and for its replicas (a handler may hold the GIL), and what it should do next. What is new in its status is an event.
-- ARGV: worker, version, when that was deployed (ms), its status as JSON, lease in ms, sweep (1|0), then its replica ids.
-- Returns {state, replicas wanted (0 only while the API rests), suspects waiting, {how many have waited for too long, cancelled id, its replica, ...},
-- stale replica ids...}; state is '' when the deployment is gone, also when another one has its number: the API was deleted, and is there again.
local worker, version, created, status, lease, sweep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local dep = p .. ':dep:' .. version
local out = redis.call('HMGET', dep, 'state', 'replicas', 'created')
if not out[1] or out[3] ~= created or redis.call('EXISTS', p .. ':api') == 0 then return {'', '0', 0, {0}} end
-- Without a beat no replica is told to serve, and nothing would be worked off that makes room.
needs_no_memory()
if redis.call('HGET', p .. ':workers', worker) ~= status then
  redis.call('HSET', p .. ':workers', worker, status)
  event('deployment', version .. ' replicas')
  flush()
end
local beats = {now, 'worker:' .. worker}
for i = 7, #ARGV do beats[#beats + 1], beats[#beats + 2] = now, ARGV[i] end
redis.call('ZADD', p .. ':beats', unpack(beats))
-- Of what was cancelled in a replica's hands, what it has not let go yet.
local ending = redis.call('HGETALL', p .. ':ending')
local late = {redis.call('ZCOUNT', p .. ':due', '-inf', now)}
for i = 1, #ending, 2 do
  if redis.call('SISMEMBER', p .. ':held:' .. ending[i + 1], ending[i]) == 1 then
    late[#late + 1], late[#late + 2] = ending[i], ending[i + 1]
  else
    redis.call('HDEL', p .. ':ending', ending[i])
  end
end
local wanted = redis.call('HGET', p .. ':api', 'stopped') == '1' and 0 or math.max(tonumber(out[2] or '') or 1, 1)
local reply = {out[1], wanted, redis.call('LLEN', p .. ':suspects'), late}
if sweep then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. ':beats', '-inf', now - lease, 'LIMIT', 0, 20)) do
    reply[#reply + 1] = id
  end
  -- The clock was set back: a beat from the future would count as fresh for as long. Who lives writes over it at once.
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. ':beats', now + lease, '+inf', 'LIMIT', 0, 20)) do
    reply[#reply + 1] = id
  end
end
return reply
