-- One round trip of a replica: mark starts, finish a batch, give back, take more. Starts go first: a short workload begins and ends in one batch.
-- ARGV: replica, version, ttl, retain (failed|always|never), retain_max, source (queue|suspects), take, start_now, n_start, n_finish, n_back,
--       then the started ids; then per finish: id, status, result, error, details, run_ms, began (1 = its start is not marked yet), with the
--       number of its run behind a space when that is not the first;
--       then the ids to give back, next one first; then per payload that stays in another form: id, bytes (empty: as it came).
--       retain is 'replaced' where only those stay.
-- Returns {dropped finishes, left in the source, id, type, body, started?, id, ...}; the run stands behind "started?" as above.
local replica, version, ttl, retain, retain_max = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local source, take, start_now = p .. ':' .. ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local n_start, n_finish, n_back = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local held = p .. ':held:' .. replica
local me = {replica, version}
local at = 12
local dropped, released, taken = {}, {}, {}

for i = 0, n_finish - 1 do
  local status = ARGV[at + n_start + 7 * i + 1]
  if not FINAL[status] then return redis.error_reply('ERR no workload ends as ' .. tostring(status)) end
end
-- An end frees its payload, and what is given back was accepted.
if n_start + n_finish + n_back > 0 then needs_no_memory() end
local replaced = {}
for i = at + n_start + 7 * n_finish + n_back, #ARGV, 2 do replaced[ARGV[i]] = ARGV[i + 1] end
for _ = 1, n_start do
  start(ARGV[at], replica, version)
  at = at + 1
end
for _ = 1, n_finish do
  local id, status = ARGV[at], ARGV[at + 1]
  local other = replaced[id]
  local keep = retain == 'always' or (retain == 'failed' and status == 'failed') or other
  if keep and retain_max >= 0 then
    keep = tonumber(redis.call('HGET', p .. ':w:' .. id, 'size') or 0) <= retain_max
  end
  local mark, run = ARGV[at + 6], '1'
  if #mark > 1 then mark, run = string.sub(mark, 1, 1), string.sub(mark, 3) end
  local began = mark == '1' and me or nil
  local done = finish(id, status, ttl, keep, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], tonumber(ARGV[at + 5]), began, run)
  if done == true then
    if keep and other and other ~= '' then
      redis.call('SET', p .. ':b:' .. id, other, 'EX', ttl)
      redis.call('HSET', p .. ':w:' .. id, 'redacted', 1)
    end
  else
    dropped[#dropped + 1] = id
  end
  -- An end of an earlier run says nothing of the run that this replica may hold by now.
  if done ~= 'stale' then released[#released + 1] = id end
  at = at + 7
end
if #released > 0 then redis.call('SREM', held, unpack(released)) end
for i = n_back - 1, 0, -1 do
  local id = ARGV[at + i]
  if redis.call('SREM', held, id) == 1 then
    local status = redis.call('HGET', p .. ':w:' .. id, 'status')
    if status and not FINAL[status] then put_back(id, status, true) end
  end
end

local out = {table.concat(dropped, ' '), 0}
local keys_of_bodies, bytes = {}, 0
-- Once a newer version is live, the one before it takes nothing more, also in the moment until it is told to drain: who was told "live" and
-- asks is answered by what went live. Its wake token goes back with `settle_wake`, to a replica that may take.
local live = take > 0 and redis.call('HGET', p .. ':api', 'live')
local retired = live and tonumber(live) > tonumber(version)
if take > 0 and not retired and (live or redis.call('EXISTS', p .. ':api') == 1) then
  local ids = redis.call('LPOP', source, take) or {}
  for i, id in ipairs(ids) do
    local r = redis.call('HMGET', p .. ':w:' .. id, 'status', 'type', 'size', 'run', 'timeout', 'due', 'attempts', 'replica', 'watched')
    if r[6] and is_overdue(r[1], r[6], redis.call('HGET', p .. ':w:' .. id, 'started')) then
      overdue(id, ttl, (retain == 'always' or retain == 'failed') and (retain_max < 0 or tonumber(r[3] or 0) <= retain_max))
    elseif r[1] and not FINAL[r[1]] then
      bytes = bytes + tonumber(r[3] or 0)
      -- Look-ahead is for small payloads: past 1 MB in one reply the rest waits for its turn.
      if #taken > 0 and bytes > 1048576 then
        for back = #ids, i, -1 do redis.call('LPUSH', source, ids[back]) end
        break
      end
      taken[#taken + 1] = id
      keys_of_bodies[#keys_of_bodies + 1] = p .. ':b:' .. id
      local started = '0'
      if start_now > 0 then
        start(id, replica, version, {r[1], r[7], r[8], r[9]})
        started, start_now = '1', start_now - 1
      end
      -- Its run, where that is not the first, and its caller's timeout in ms, where it has one.
      if r[5] or (r[4] and r[4] ~= '1') then started = started .. ' ' .. (r[4] or '1') .. ' ' .. (r[5] or '0') end
      local n = #out
      out[n + 1], out[n + 2], out[n + 3], out[n + 4] = id, r[2], '', started
    end
  end
  if #taken > 0 then
    redis.call('SADD', held, unpack(taken))
    -- Who was taken for dead and lives may come without a beat, its worker gone: what it holds must be found when it does die.
    redis.call('ZADD', p .. ':beats', 'NX', now, replica)
    for i, body in ipairs(redis.call('MGET', unpack(keys_of_bodies))) do out[4 * i + 1] = body or '' end
  end
end
-- Nothing is left for a retired one: it waits for a token like any other until it is told to drain.
local left = redis.call('LLEN', source)
out[2] = retired and 0 or left
if ARGV[6] == 'queue' then settle_wake(left) end
if n_finish > 0 then
  trim_index('completed', ttl); trim_index('failed', ttl); trim_index('cancelled', ttl)
end
flush()
return out
