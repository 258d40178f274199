-- Let an API rest, or go on. ARGV: stopped (1|0). Returns 0 for an API that is not there: writing to it would bring back half of one that was just deleted.
if redis.call('EXISTS', p .. ':api') == 0 then return 0 end
needs_no_memory()
redis.call('HSET', p .. ':api', 'stopped', ARGV[1])
return 1
