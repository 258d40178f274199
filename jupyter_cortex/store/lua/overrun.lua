-- End a workload that its replica could not end. ARGV: id, replica, ttl, retain payload of failed (1|0), error as JSON, details as JSON.
-- Returns 1, or 0 when it has ended already or is not that replica's any more.
local id, replica = ARGV[1], ARGV[2]
if redis.call('SISMEMBER', p .. ':held:' .. replica, id) == 0 then return 0 end
needs_no_memory()
local took = finish(id, 'failed', tonumber(ARGV[3]), ARGV[4] == '1', '', ARGV[5], ARGV[6], nil, nil)
-- Then it is not held any more: should it be requeued, its next run is not what that replica holds.
if took then redis.call('SREM', p .. ':held:' .. replica, id) end
flush()
return took and 1 or 0
