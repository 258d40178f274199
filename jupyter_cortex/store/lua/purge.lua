-- Remove what a deleted API left, 500 workloads a call. Returns how many it removed; 0 when all is gone.
local next_version = redis.call('GET', p .. ':deleting')
if not next_version then return 0 end
local removed = 0
for _, status in ipairs({'open', 'completed', 'failed', 'cancelled'}) do
  local popped = redis.call('ZPOPMIN', p .. ':' .. status, 500)
  for i = 1, #popped, 2 do
    local id = popped[i]
    redis.call('UNLINK', p .. ':w:' .. id, p .. ':b:' .. id, p .. ':r:' .. id, p .. ':e:' .. id, p .. ':p:' .. id, p .. ':x:' .. id)
    redis.call('PUBLISH', p .. ':d:' .. id, 'deleted')
    removed = removed + 1
  end
end
if removed > 0 then return removed end
for _, seen in ipairs(redis.call('ZRANGE', p .. ':groups', 0, -1)) do redis.call('UNLINK', p .. ':f:' .. string.match(seen, '^%x+')) end
for _, replica in ipairs(redis.call('ZRANGE', p .. ':beats', 0, -1)) do redis.call('UNLINK', p .. ':held:' .. replica) end
for _, digest in ipairs(redis.call('SMEMBERS', p .. ':bundles')) do redis.call('UNLINK', p .. ':bundle:' .. digest) end
for n = 1, tonumber(next_version) do redis.call('UNLINK', p .. ':dep:' .. n, p .. ':report:' .. n, p .. ':rehearsal:' .. n) end
local minute = math.floor(now / 60000)
for m = minute - 10200, minute do redis.call('UNLINK', p .. ':m:' .. m) end
for t = math.floor((minute - 10200) / 10), math.floor(minute / 10) do redis.call('UNLINK', p .. ':t:' .. t) end
for h = math.floor((minute - 10200) / 60), math.floor(minute / 60) do redis.call('UNLINK', p .. ':h:' .. h) end
for _, name in ipairs({'queue', 'suspects', 'wake', 'beats', 'workers', 'events', 'logs', 'metrics', 'active', 'bundles', 'exits', 'groups', 'audit',
  'ending', 'due', 'deleting'}) do
  redis.call('UNLINK', p .. ':' .. name)
end
return 0
