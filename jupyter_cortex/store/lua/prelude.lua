-- What every script shares. KEYS[1] is the API's prefix, cx:{<api>}; see keys.py for what lies below it.
-- Lua does not roll back: every script validates first. Redis asks only at the first write whether memory is out: scripts that accept begin with
-- one that it then refuses, scripts that end or give back with one that it allows, and the rest of theirs is allowed with it.
local p = KEYS[1]
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local DAY = 86400
local FINAL = {completed = true, failed = true, cancelled = true}
-- 10,000 entries are a few MB: enough to catch up after a lost connection, not an archive.
local EVENTS = 10000
-- Entries of an audit.
local AUDITS = 200

-- Such a write, which changes nothing.
local function needs_no_memory() redis.call('ZREM', p .. ':beats', '') end

-- What a script has gathered; `flush` writes it at the end with one command each, whatever the size of the batch. Calls from Lua cost about as much as
-- what they do, so a drain gains a factor of two by this.
local moves, sums, opened_no_more, bodies, alike = {}, {}, {}, {}, {}
local ended = {completed = {}, failed = {}, cancelled = {}}

-- One entry holds all moves of a script: ids and new states in turn, one a line. Its stream id is their sequence number.
local function event(id, what)
  moves[#moves + 1] = id
  moves[#moves + 1] = what
end

-- Counters per minute, ten minutes and hour, kept 7 days: a week is read as 168 keys instead of 10,080.
local SPANS = {[':m:'] = 60000, [':t:'] = 600000, [':h:'] = 3600000}
local function count(field, by) sums[field] = (sums[field] or 0) + (by or 1) end

-- A failure's group: ids by fingerprint, and a list of the groups with the versions in which they were seen. They leave with their workloads.
local GROUPS = 1000

local function file_failures()
  for mark, group in pairs(alike) do
    local key = p .. ':f:' .. mark
    redis.call('ZADD', key, unpack(group))
    redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. (now - group.ttl * 1000))
    redis.call('EXPIRE', key, group.ttl)
    for version in pairs(group.versions) do redis.call('ZADD', p .. ':groups', now, mark .. ' ' .. version) end
    redis.call('ZREMRANGEBYSCORE', p .. ':groups', '-inf', '(' .. (now - group.ttl * 1000))
    if redis.call('TTL', p .. ':groups') < group.ttl then redis.call('EXPIRE', p .. ':groups', group.ttl) end
  end
  local beyond = redis.call('ZCARD', p .. ':groups') - GROUPS
  if beyond > 0 then
    for _, old in ipairs(redis.call('ZPOPMIN', p .. ':groups', beyond)) do
      local mark = string.match(old, '^(%x+) ')
      if mark and not alike[mark] then redis.call('UNLINK', p .. ':f:' .. mark) end
    end
  end
end

local function flush()
  if #moves > 0 then redis.call('XADD', p .. ':events', 'MAXLEN', '~', EVENTS, '*', 'm', table.concat(moves, '\n')) end
  if #opened_no_more > 0 then redis.call('ZREM', p .. ':open', unpack(opened_no_more)) end
  if #bodies > 0 then redis.call('UNLINK', unpack(bodies)) end
  for status, scored in pairs(ended) do
    if #scored > 0 then redis.call('ZADD', p .. ':' .. status, unpack(scored)) end
  end
  if next(alike) then file_failures() end
  if next(sums) then
    for name, ms in pairs(SPANS) do
      local key, fresh = p .. name .. math.floor(now / ms), false
      for field, by in pairs(sums) do
        if redis.call('HINCRBY', key, field, by) == by then fresh = true end
      end
      if fresh then redis.call('EXPIRE', key, 7 * DAY + 3600) end
    end
  end
end

-- One token per waiting workload, at most 64: a token means "look", not "one workload for you".
local function wake(waiting)
  local tokens = {}
  for at = 1, math.min(waiting or 1, 64 - redis.call('LLEN', p .. ':wake')) do tokens[at] = '1' end
  if #tokens > 0 then redis.call('RPUSH', p .. ':wake', unpack(tokens)) end
end

-- After taking from the queue: no tokens for an empty queue, at least one for a queue that still holds work. `left` (or nil): how much it holds.
local function settle_wake(left)
  if (left or redis.call('LLEN', p .. ':queue')) == 0 then
    redis.call('DEL', p .. ':wake')
  elseif redis.call('LLEN', p .. ':wake') == 0 then
    redis.call('RPUSH', p .. ':wake', '1')
  end
end

-- What left its replica without an end is next again; `uncharged`: a marked start was its fetch's, and it never came to a handler.
-- One that was put aside to run alone stays so: in the queue it would meet neighbours, whose crash could be its last death. For those there is no
-- token: the workers hear of them with each beat, and see to a fresh replica. Returns whether it lies aside.
local function put_back(id, status, uncharged)
  local w = p .. ':w:' .. id
  redis.call('HSET', w, 'status', 'in_queue')
  if status == 'in_progress' then
    if uncharged and redis.call('HINCRBY', w, 'attempts', -1) == 0 then
      -- It has not begun yet after all, and its queue timeout counts on.
      redis.call('HDEL', w, 'started')
      local due = redis.call('HGET', w, 'due')
      if due then redis.call('ZADD', p .. ':due', due, id) end
    end
    event(id, 'in_queue')
  end
  if redis.call('HEXISTS', w, 'alone') == 1 then
    redis.call('RPUSH', p .. ':suspects', id)
    return true
  end
  redis.call('LPUSH', p .. ':queue', id)
  wake()
  return false
end

-- Whether its payload stays: '1' whatever its size, '0' in no case, '<=N' if it has at most so many bytes.
local function stays(id, keep)
  local most = string.match(keep, '^<=(%d+)$')
  if not most then return keep == '1' end
  return tonumber(redis.call('HGET', p .. ':w:' .. id, 'size') or 0) <= tonumber(most)
end

-- Histogram bucket of a duration in ms: two per doubling, so that a read-off quantile is within 1.41x.
local function bucket(ms)
  if ms < 0 then ms = 0 end
  return math.floor(2 * math.log(ms + 1) / math.log(2))
end

-- `old` (or nil): what is already known of it, as it is read here.
local function start(id, replica, version, old)
  local w = p .. ':w:' .. id
  old = old or redis.call('HMGET', w, 'status', 'attempts', 'replica', 'watched')
  if not old[1] or FINAL[old[1]] then return false end
  -- Said again, because the reply to the first time was lost.
  if old[1] == 'in_progress' and old[3] == replica then return true end
  redis.call('HSET', w, 'status', 'in_progress', 'started', now, 'replica', replica, 'version', version, 'attempts', tonumber(old[2] or 0) + 1)
  event(id, 'in_progress')
  if old[4] then redis.call('PUBLISH', p .. ':n:' .. id, 'in_progress') end
  return true
end

-- The one door into a final state. `keep` says whether the payload stays; `began` (or nil) has replica and version of a start that is not marked yet.
-- `run` (or nil) is the run that ends. Returns false when the workload is gone or final already; 'stale' when a requeue has begun another run.
local function finish(id, status, ttl, keep, result, err, details, run_ms, began, run)
  local w = p .. ':w:' .. id
  local old = redis.call('HMGET', w, 'status', 'accepted', 'started', 'attempts', 'replica', 'run')
  if not old[1] or FINAL[old[1]] then return false end
  if run and old[6] and old[6] ~= run then return 'stale' end
  local started = old[3]
  -- Unless the mark was taken, and only its reply lost.
  if began and not (old[1] == 'in_progress' and old[5] == began[1]) then
    started = math.max(tonumber(old[2]), math.floor(now - (run_ms or 0)))
    redis.call('HSET', w, 'status', status, 'finished', now, 'started', started, 'replica', began[1], 'version', began[2],
      'attempts', tonumber(old[4] or 0) + 1)
    event(id, 'in_progress')
  else
    redis.call('HSET', w, 'status', status, 'finished', now)
  end
  if err ~= '' then redis.call('HSET', w, 'error', err) end
  redis.call('EXPIRE', w, ttl)
  if status == 'completed' then redis.call('SET', p .. ':r:' .. id, result, 'EX', ttl) end
  if details ~= '' then
    redis.call('SET', p .. ':e:' .. id, details, 'EX', ttl)
    local mark = string.match(details, '^{"fingerprint": "(%x+)"')
    if mark then
      redis.call('HSET', w, 'fingerprint', mark)
      local group = alike[mark] or {ttl = ttl, versions = {}}
      -- '0': its replica died before its start was marked.
      group.versions[began and began[2] or redis.call('HGET', w, 'version') or '0'] = true
      group[#group + 1] = now
      group[#group + 1] = id
      alike[mark] = group
    end
  end
  if keep then redis.call('EXPIRE', p .. ':b:' .. id, ttl) else bodies[#bodies + 1] = p .. ':b:' .. id end
  opened_no_more[#opened_no_more + 1] = id
  local scored = ended[status]
  scored[#scored + 1] = now
  scored[#scored + 1] = id
  event(id, status)
  redis.call('PUBLISH', p .. ':d:' .. id, status)
  count(status)
  if started then
    count('wait:' .. bucket(tonumber(started) - tonumber(old[2])))
    if run_ms then count('run:' .. bucket(run_ms)) end
  end
  return true
end

-- A queue timeout counts until a workload is begun for the first time. `due` (ms) is in its record only when it has one.
local function is_overdue(status, due, started)
  return due and status == 'in_queue' and not started and tonumber(due) <= now
end

-- What is kept of it: its group (handler/fingerprint.py, `of_reason`), and that it came to no frame.
local NOT_BEGUN = '{"fingerprint": "1c5926d95dbb", "frames": [], "traceback": "", "logs": []}'

-- It has waited for too long. The mark goes with it: put back by hand, it may wait again.
local function overdue(id, ttl, keep)
  local w = p .. ':w:' .. id
  local r = redis.call('HMGET', w, 'accepted', 'due')
  local limit, waited = (tonumber(r[2]) - tonumber(r[1])) / 1000, (now - tonumber(r[1])) / 1000
  local said = string.format('the workload has waited for %.1f s, longer than its queue timeout of %g s; it was not begun', waited, limit)
  finish(id, 'failed', ttl, keep, '', cjson.encode({type = 'QueueTimeout', message = said}), NOT_BEGUN, nil, nil)
  redis.call('HDEL', w, 'due')
end

-- Index entries leave with their workloads; 200 a call keep the script short while outrunning any rate it is called at.
local function trim_index(status, ttl)
  local old = redis.call('ZRANGEBYSCORE', p .. ':' .. status, '-inf', now - ttl * 1000, 'LIMIT', 0, 200)
  if #old > 0 then redis.call('ZREM', p .. ':' .. status, unpack(old)) end
end
