-- What a list shows of an API, as of one moment. ARGV: minutes of counters before the current one.
-- Returns {now, fields of the API, of its live deployment, of its wanted one, workers, numbers, minutes}; {} when there is no such API.
local api = p .. ':api'
if redis.call('EXISTS', api) == 0 then return {} end
local fields = redis.call('HMGET', api, 'endpoint', 'source', 'live', 'wanted', 'stopped', 'created', 'updated')

local function deployment(version)
  if not version then return {} end
  return redis.call('HMGET', p .. ':dep:' .. version, 'state', 'replicas', 'capped', 'digest', 'error')
end

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
for minute = current - tonumber(ARGV[1]), current do
  local counted = redis.call('HMGET', p .. ':m:' .. minute, 'accepted', 'completed', 'failed', 'cancelled')
  if minute == current or counted[1] or counted[2] or counted[3] or counted[4] then
    minutes[#minutes + 1] = {minute, counted[1] or 0, counted[2] or 0, counted[3] or 0, counted[4] or 0}
  end
end
return {now, fields, deployment(fields[3]), deployment(fields[4]), redis.call('HVALS', p .. ':workers'), numbers, minutes}
