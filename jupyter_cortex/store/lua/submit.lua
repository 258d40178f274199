-- Accept one workload: its record, its payload, its place in the queue and the wake-up, or nothing of it.
-- ARGV: id, content type, body digest, size, body, how many may wait. Returns 'ok', 'same', 'conflict', 'not_live', 'unknown' or 'queue_full'.
local id, ctype, digest, size, body, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]) or math.huge
local gate = redis.call('HGET', p .. ':api', 'gate')
if not gate then return 'unknown' end
if gate ~= 'open' then return 'not_live' end
local w = p .. ':w:' .. id
local old = redis.call('HMGET', w, 'digest', 'type')
if old[1] then
  if old[1] == digest and old[2] == ctype then return 'same' end
  return 'conflict'
end
-- After the look at the record: what was accepted is told again, however full the queue is.
if redis.call('LLEN', p .. ':queue') >= most then return 'queue_full' end
redis.call('HSET', w, 'status', 'in_queue', 'type', ctype, 'digest', digest, 'size', size, 'accepted', now, 'run', 1)
redis.call('SET', p .. ':b:' .. id, body)
redis.call('RPUSH', p .. ':queue', id)
redis.call('ZADD', p .. ':open', now, id)
event(id, 'in_queue')
count('accepted')
flush()
wake()
return 'ok'
