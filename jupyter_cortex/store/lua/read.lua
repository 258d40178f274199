-- Records by id, in one reply: asking for each on its own costs the asker more than the store. ARGV: ids.
-- Returns the fields of each in the order of FIELDS in records.py; one that is not there has no status.
local out = {}
for i = 1, #ARGV do
  out[i] = redis.call('HMGET', p .. ':w:' .. ARGV[i], 'status', 'type', 'digest', 'size', 'accepted', 'started', 'finished', 'attempts', 'deaths',
    'run', 'replica', 'version', 'error')
end
return out
