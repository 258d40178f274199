-- Failed workloads go back into the queue under their old ids: the one move out of a final state, and the beginning of their next run.
-- ARGV: how many may wait in the queue, what the audit says beside time and ids (JSON members, or ''), then the ids.
-- Its queue timeout was for its caller's first wait, and does not count again.
-- Returns a word for each: 'ok', 'unknown', 'gone' (no payload), 'redacted' (it is not the caller's any more), 'full', or the status that it has.
-- Refused when memory is out, and then nothing has been done: its first write is one that is.
local room, about = tonumber(ARGV[1]) - redis.call('LLEN', p .. ':queue'), ARGV[2]
-- What is told of earlier runs.
local RUNS, SHORT = 20, 1000
local words, ids, opened = {}, {}, {}

-- It was given to another replica, and ended by one that had been taken for dead: the other may wait for it or hold it still.
local function remove_elsewhere(id)
  redis.call('LREM', p .. ':queue', 0, id)
  redis.call('LREM', p .. ':suspects', 0, id)
  for _, replica in ipairs(redis.call('ZRANGE', p .. ':beats', 0, -1)) do redis.call('SREM', p .. ':held:' .. replica, id) end
end

local function again(id)
  local w, b = p .. ':w:' .. id, p .. ':b:' .. id
  local r = redis.call('HMGET', w, 'status', 'run', 'redacted', 'fingerprint', 'version', 'error', 'accepted', 'finished', 'moved')
  if not r[1] then return 'unknown' end
  if r[1] ~= 'failed' then return r[1] end
  if r[3] then return 'redacted' end
  if redis.call('EXISTS', b) == 0 then return 'gone' end
  if #ids >= room then return 'full' end
  local run = tonumber(r[2] or 1)
  local err = r[6] and #r[6] <= SHORT and r[6] or 'null'
  local told = '{"run": ' .. run .. ', "at": ' .. now .. about .. ', "version": ' .. (r[5] or 'null') .. ', "fingerprint": "' .. (r[4] or '')
    .. '", "error": ' .. err .. ', "accepted": ' .. (r[7] or 'null') .. ', "finished": ' .. (r[8] or 'null') .. '}'
  redis.call('HSET', w, 'status', 'in_queue', 'run', run + 1, 'accepted', now, 'requeue:' .. run, told)
  if r[9] then remove_elsewhere(id) end
  redis.call('HDEL', w, 'started', 'finished', 'attempts', 'deaths', 'replica', 'version', 'error', 'fingerprint', 'moved', 'alone', 'progress', 'notebook', 'due', 'requeue:' .. (run - RUNS))
  redis.call('PERSIST', w)
  redis.call('PERSIST', b)
  redis.call('UNLINK', p .. ':e:' .. id, p .. ':r:' .. id, p .. ':p:' .. id, p .. ':x:' .. id)
  redis.call('ZREM', p .. ':failed', id)
  redis.call('ZREM', p .. ':due', id)
  if r[4] then redis.call('ZREM', p .. ':f:' .. r[4], id) end
  ids[#ids + 1] = id
  opened[#opened + 1] = now
  opened[#opened + 1] = id
  event(id, 'in_queue')
  return 'ok'
end

-- A call that moves thousands comes here once for each hundred: its ids go into one entry while that is short, so that it does not push all others out.
local ENTRY, MINUTE = 32 * 1024, 60000
local function note(head, moved)
  local last = redis.call('LINDEX', p .. ':audit', 0) or ''
  local _, stop, at = last:find('^{"at": (%d+)')
  if stop and last:sub(stop + 1, stop + #head) == head and now - tonumber(at) < MINUTE and #last + #moved < ENTRY then
    redis.call('LSET', p .. ':audit', 0, last:sub(1, -3) .. ', "' .. moved)
    return
  end
  redis.call('LPUSH', p .. ':audit', '{"at": ' .. now .. head .. moved)
  redis.call('LTRIM', p .. ':audit', 0, AUDITS - 1)
end

if redis.call('EXISTS', p .. ':api') == 0 then room = 0 end
for at = 3, #ARGV do words[at - 2] = again(ARGV[at]) end
if #ids > 0 then
  redis.call('RPUSH', p .. ':queue', unpack(ids))
  redis.call('ZADD', p .. ':open', unpack(opened))
  -- They come in once more: what came in less what ended is what is open.
  count('accepted', #ids)
  flush()
  wake(#ids)
  note(', "what": "requeue"' .. about .. ', "ids": ["', table.concat(ids, '", "') .. '"]}')
end
return words
