-- Take a workload back. ARGV: id, ttl, which payloads stay (1|0|<=N). Returns 'cancelled', the final status it already has, or 'unknown'.
-- One that is in a replica's hands is noted for that replica's worker (beat.lua tells it until the replica has let go), which is woken.
local id, ttl = ARGV[1], tonumber(ARGV[2])
local status = redis.call('HGET', p .. ':w:' .. id, 'status')
if not status then return 'unknown' end
if FINAL[status] then return status end
local waited = redis.call('LREM', p .. ':queue', 1, id) + redis.call('LREM', p .. ':suspects', 1, id) > 0
finish(id, 'cancelled', ttl, stays(id, ARGV[3]), '', '', '', nil, nil)
flush()
if not waited then
  for _, replica in ipairs(redis.call('ZRANGE', p .. ':beats', 0, -1)) do
    if redis.call('SISMEMBER', p .. ':held:' .. replica, id) == 1 then
      redis.call('HSET', p .. ':ending', id, replica)
      redis.call('EXPIRE', p .. ':ending', DAY)
      redis.call('PUBLISH', p .. ':ends', replica)
    end
  end
end
return 'cancelled'
