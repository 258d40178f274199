-- Say how many replicas a deployment is to have. ARGV: version, so many, how many were wanted, why it is not more. Returns 0 for one that is gone.
local dep = p .. ':dep:' .. ARGV[1]
if redis.call('EXISTS', dep) == 0 then return 0 end
needs_no_memory()
redis.call('HSET', dep, 'replicas', ARGV[2], 'wanted_replicas', ARGV[3], 'capped', ARGV[4])
event('deployment', ARGV[1] .. ' replicas')
flush()
return 1
