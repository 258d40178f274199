-- Fields of records, in one reply: asking for each record on its own costs the asker more than the store.
-- ARGV: number of fields, their names, then ids. Returns the fields of each id in that order; a record that is not there has no status.
local n = tonumber(ARGV[1])
local fields = {unpack(ARGV, 2, n + 1)}
local out = {}
for i = n + 2, #ARGV do out[i - n - 1] = redis.call('HMGET', KEYS[1] .. ':w:' .. ARGV[i], unpack(fields)) end
return out
