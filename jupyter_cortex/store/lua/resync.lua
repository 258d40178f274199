-- After a reconnect: what the store believes a replica holds against what it really has. A lost reply leaves ids that nobody would ever run.
-- ARGV: replica, then the ids it has, each with its run behind a space when that is not the first. Returns how many went back.
local held = p .. ':held:' .. ARGV[1]
local known = {}
for i = 2, #ARGV do known[ARGV[i]] = true end
local back = 0
for _, id in ipairs(redis.call('SMEMBERS', held)) do
  local r = redis.call('HMGET', p .. ':w:' .. id, 'status', 'run')
  local status, run = r[1], r[2] or '1'
  if not known[run == '1' and id or (id .. ' ' .. run)] then
    redis.call('SREM', held, id)
    if status and not FINAL[status] then
      put_back(id, status, true)
      back = back + 1
    end
  end
end
settle_wake()
flush()
return back
