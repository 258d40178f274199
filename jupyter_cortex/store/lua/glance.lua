-- What a list shows of an API, as of one moment. ARGV: minutes of counters before the current one.
-- Returns {now, fields of the API, of its live deployment, of its wanted one, of the last that was rehearsed, workers, numbers, minutes}; {} when there
-- is no such API.
local p = KEYS[1]
local api = p .. ':api'
if redis.call('EXISTS', api) == 0 then return {} end
local fields = redis.call('HMGET', api, 'endpoint', 'source', 'live', 'wanted', 'stopped', 'created', 'updated', 'rehearsed')

local function deployment(version)
  if not version then return {} end
  return redis.call('HMGET', p .. ':dep:' .. version, 'state', 'replicas', 'capped', 'digest', 'error', 'min_replicas')
end
local live = deployment(fields[3])
local wanted = fields[4] == fields[3] and live or deployment(fields[4])
local rehearsed = fields[8] and redis.call('HMGET', p .. ':dep:' .. fields[8], 'state', 'rehearsal', 'error', 'failed_at') or {}

local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local numbers = {
  redis.call('LLEN', p .. ':queue') + redis.call('LLEN', p .. ':suspects'),
  redis.call('ZCARD', p .. ':open'),
  redis.call('ZCARD', p .. ':completed'),
  redis.call('ZCARD', p .. ':failed'),
  redis.call('ZCARD', p .. ':cancelled'),
  redis.call('ZCOUNT', p .. ':failed', now - 3600000, '+inf'),
}
local minutes = {}
local current = math.floor(now / 60000)
local minute = current - tonumber(ARGV[1])
while minute <= current do
  -- Most APIs rest most of the time: ten minutes without traffic are one look.
  if minute < current and redis.call('EXISTS', p .. ':t:' .. math.floor(minute / 10)) == 0 then
    minute = math.min(current, minute - minute % 10 + 10)
  else
    repeat
      local counted = redis.call('HMGET', p .. ':m:' .. minute, 'accepted', 'completed', 'failed', 'cancelled')
      if minute == current or counted[1] or counted[2] or counted[3] or counted[4] then
        minutes[#minutes + 1] = {minute, counted[1] or 0, counted[2] or 0, counted[3] or 0, counted[4] or 0}
      end
      minute = minute + 1
    until minute % 10 == 0 or minute > current
  end
end
return {now, fields, live, wanted, rehearsed, redis.call('HVALS', p .. ':workers'), numbers, minutes}
