-- Fail the workloads that have waited for longer than their queue timeout. ARGV: ttl, retain (failed|always|never), retain_max, most.
-- Returns {failed, due still}. Taking one out of the middle of a long queue costs its length, so a call does only so much of that.
local ttl, retain, retain_max, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local swept, budget = 0, 1000000
needs_no_memory()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. ':due', '-inf', now, 'LIMIT', 0, most)) do
  local r = redis.call('HMGET', p .. ':w:' .. id, 'status', 'due', 'started', 'size')
  if not is_overdue(r[1], r[2], r[3]) then
    redis.call('ZREM', p .. ':due', id)
  else
    if not redis.call('LPOS', p .. ':queue', id, 'MAXLEN', 1000) then budget = budget - redis.call('LLEN', p .. ':queue') end
    if budget < 0 then break end
    if redis.call('LREM', p .. ':queue', 1, id) == 1 then
      redis.call('ZREM', p .. ':due', id)
      overdue(id, ttl, (retain == 'always' or retain == 'failed') and (retain_max < 0 or tonumber(r[4] or 0) <= retain_max))
      swept = swept + 1
    else
      -- In a replica's hands, about to begin or to come back: then it is looked at again.
      redis.call('ZADD', p .. ':due', now + 1000, id)
    end
  end
end
flush()
return {swept, redis.call('ZCOUNT', p .. ':due', '-inf', now)}
