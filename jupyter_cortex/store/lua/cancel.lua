-- Take a workload back. ARGV: id, ttl, retain payload (1|0). Returns 'cancelled', the final status it already has, or 'unknown'.
local id, ttl, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local status = redis.call('HGET', p .. ':w:' .. id, 'status')
if not status then return 'unknown' end
if FINAL[status] then return status end
redis.call('LREM', p .. ':queue', 1, id)
redis.call('LREM', p .. ':suspects', 1, id)
finish(id, 'cancelled', ttl, keep, '', '', '', nil, nil)
flush()
return 'cancelled'
