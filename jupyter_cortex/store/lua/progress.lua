-- How far workloads are, as their replica says. ARGV: replica, version, then per workload: id, progress as JSON, a partial result ('' = none new).
-- Returns how many it took: only who holds a workload speaks for it. A start that is not marked yet is marked with it.
local replica, version = ARGV[1], ARGV[2]
local took = 0
for i = 3, #ARGV, 3 do
  local id = ARGV[i]
  if redis.call('SISMEMBER', p .. ':held:' .. replica, id) == 1 and start(id, replica, version) then
    redis.call('HSET', p .. ':w:' .. id, 'progress', ARGV[i + 1])
    if ARGV[i + 2] ~= '' then redis.call('SET', p .. ':p:' .. id, ARGV[i + 2], 'EX', DAY) end
    event(id, 'progress')
    redis.call('PUBLISH', p .. ':n:' .. id, 'progress')
    took = took + 1
  end
end
flush()
return took
