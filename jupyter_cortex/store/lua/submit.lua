-- Accept workloads: each with its record, its payload, its place in the queue and the wake-up, or nothing of it.
-- ARGV: per workload id, content type, body digest, size, body; then how many may wait in the queue (left out: any number), and behind that, where any of
-- them has them, queue timeout and timeout of all of them in ms (0 = none). The size of a body that came in pieces (piece.lua) has a minus in front of
-- it, and its token stands for it.
-- Returns a word for each, a space between: 'ok', 'same', 'conflict', 'not_live', 'unknown', 'queue_full', or 'again': its pieces are not all there.
-- Those that arrive together come together: what a script costs, and its one look at the API, are shared.
local gate = redis.call('HGET', p .. ':api', 'gate')
local refusal = not gate and 'unknown' or gate ~= 'open' and 'not_live'
local room = math.huge
local limits = #ARGV % 5
if limits > 0 then room = tonumber(ARGV[#ARGV - limits + 1]) - redis.call('LLEN', p .. ':queue') end
local wait_ms, run_ms = 0, 0
if limits == 3 then wait_ms, run_ms = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV]) end
local words, ids, opened = {}, {}, {}

local function accept(id, ctype, digest, size, body, pieces)
  if refusal then return refusal end
  local w = p .. ':w:' .. id
  local old = redis.call('HMGET', w, 'digest', 'type')
  if old[1] then return old[1] == digest and old[2] == ctype and 'same' or 'conflict' end
  -- After the look at the record: what was accepted is told again, however full the queue is.
  if #ids >= room then return 'queue_full' end
  if pieces and redis.call('STRLEN', pieces) ~= tonumber(size) then return 'again' end
  redis.call('HSET', w, 'status', 'in_queue', 'type', ctype, 'digest', digest, 'size', size, 'accepted', now, 'run', 1)
  if run_ms > 0 then redis.call('HSET', w, 'timeout', run_ms) end
  if wait_ms > 0 then
    redis.call('HSET', w, 'due', now + wait_ms)
    redis.call('ZADD', p .. ':due', now + wait_ms, id)
  end
  if pieces then
    -- A string that grew by APPEND holds room for as much again, 1 MB at most: one of 300 kB takes 2.2 times its size. A copy is exact, and takes
    -- 0.3 ms for 1.5 MB; of 10 MB it takes 8 ms and saves a tenth.
    if tonumber(size) < 2 * 1024 * 1024 then
      redis.call('COPY', pieces, p .. ':b:' .. id)
      redis.call('UNLINK', pieces)
    else
      redis.call('RENAME', pieces, p .. ':b:' .. id)
    end
    redis.call('PERSIST', p .. ':b:' .. id)
  else
    redis.call('SET', p .. ':b:' .. id, body)
  end
  ids[#ids + 1] = id
  opened[#opened + 1] = now
  opened[#opened + 1] = id
  event(id, 'in_queue')
  return 'ok'
end

for at = 1, #ARGV - #ARGV % 5, 5 do
  local id, digest, size, body = ARGV[at], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local pieces = string.byte(size) == 45 and p .. ':u:' .. id .. ':' .. body
  if pieces then size = string.sub(size, 2) end
  local word = accept(id, ARGV[at + 1], digest, size, body, pieces)
  if pieces and word ~= 'ok' then redis.call('UNLINK', pieces) end
  words[#words + 1] = word
end
if #ids > 0 then
  redis.call('RPUSH', p .. ':queue', unpack(ids))
  redis.call('ZADD', p .. ':open', unpack(opened))
  count('accepted', #ids)
  flush()
  wake(#ids)
end
return table.concat(words, ' ')
