-- Close an API for good: from here on nothing is accepted and no replica is fed; `purge` then removes what is left. Returns 1 when there was one.
if redis.call('EXISTS', p .. ':api') == 0 then return 0 end
local last = redis.call('HGET', p .. ':api', 'next') or '0'
-- First, because it needs no memory: to delete is a way to make room.
redis.call('DEL', p .. ':api')
redis.call('SET', p .. ':deleting', last)
for _, n in ipairs(redis.call('SMEMBERS', p .. ':active')) do
  redis.call('HSET', p .. ':dep:' .. n, 'state', 'stopped', 'stopped_at', now)
end
return 1
