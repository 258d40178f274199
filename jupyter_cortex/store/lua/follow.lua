-- What somebody who follows one workload sees of it now. ARGV: id, how far into the queue its place is looked for.
-- Returns {status, error, started, finished, attempts, run, progress, accepted, place}: how many wait in front of it, -1 = more than that many.
-- Its start is told to who follows it, from now on: those whom nobody follows are spared that.
local p, id = KEYS[1], ARGV[1]
local w = p .. ':w:' .. id
local r = redis.call('HMGET', w, 'status', 'error', 'started', 'finished', 'attempts', 'run', 'progress', 'accepted', 'watched')
local place = 0
if r[1] == 'in_queue' then
  -- Refused where memory is out: then its start is seen a little later.
  if not r[9] then redis.pcall('HSET', w, 'watched', '1') end
  local far = tonumber(ARGV[2])
  local found = redis.call('LPOS', p .. ':queue', id, 'MAXLEN', far)
  -- What is in no queue is in a replica's hands.
  place = found or (redis.call('LLEN', p .. ':queue') > far and -1 or 0)
end
r[9] = place
return r
