-- Keep the executed notebook of a workload that is about to end, as long as its record. ARGV: replica, id, run, ttl, its bytes, the compressed notebook.
-- Returns 1 when it is kept: only who holds a workload speaks for it, and not for a run that a requeue has followed.
local replica, id, run, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('SISMEMBER', p .. ':held:' .. replica, id) == 0 or redis.call('HGET', p .. ':w:' .. id, 'run') ~= run then return 0 end
redis.call('SET', p .. ':x:' .. id, ARGV[6], 'EX', ttl)
redis.call('HSET', p .. ':w:' .. id, 'notebook', ARGV[5])
return 1
