-- A replica is gone: its unfinished workloads go back to the head of the queue, or where their history puts them.
-- ARGV: replica, max_deliveries, ttl, which payloads of failed stay (1|0|<=N), reason, details, then the ids that were on its board (they ran when it died);
-- then, behind an empty one, per payload that stays in another form: id, bytes (empty: as it came). keep is 'replaced' where only those stay.
-- Only those ids are charged with the death; with an empty board (a planned stop, a lost machine) nothing is charged.
-- Returns {back in the queue, put aside to run alone, failed ids...}.
local replica, max, ttl, keep, reason, details = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local held = p .. ':held:' .. replica
local board, replaced = {}, {}
local at = 7
while ARGV[at] and ARGV[at] ~= '' do
  board[ARGV[at]] = true
  at = at + 1
end
for i = at + 1, #ARGV, 2 do replaced[ARGV[i]] = ARGV[i + 1] end
local requeued, suspected, failed = 0, 0, {}
-- The first write, which needs no memory: what is given back was accepted.
redis.call('ZREM', p .. ':beats', replica)
local ids = redis.call('SMEMBERS', held)
for _, id in ipairs(ids) do
  local w = p .. ':w:' .. id
  local status = redis.call('HGET', w, 'status')
  if status and not FINAL[status] then
    local deaths = tonumber(redis.call('HGET', w, 'deaths') or 0)
    if board[id] then deaths = redis.call('HINCRBY', w, 'deaths', 1) end
    if board[id] and deaths >= max then
      local err = cjson.encode({type = 'ReplicaDied', message = 'the replica died ' .. deaths .. ' times while it ran this workload (last: ' .. reason .. ')'})
      local other = replaced[id]
      finish(id, 'failed', ttl, other or stays(id, keep), '', err, details, nil, nil)
      if other and other ~= '' then
        redis.call('SET', p .. ':b:' .. id, other, 'EX', ttl)
        redis.call('HSET', w, 'redacted', 1)
      end
      failed[#failed + 1] = id
    else
      -- 'moved': should the replica live after all and end it, then it lies where it is put now, too.
      redis.call('HSET', w, 'moved', 1)
      -- The last chance is taken alone on a fresh replica, so that nobody fails for its neighbour's crash.
      if board[id] and max > 1 and deaths >= max - 1 then redis.call('HSET', w, 'alone', 1) end
      -- Where something ran, a start that is marked beside it was the fetch's.
      if put_back(id, status, next(board) and not board[id]) then suspected = suspected + 1 else requeued = requeued + 1 end
    end
  end
end
redis.call('DEL', held)
flush()
settle_wake()
return {requeued, suspected, unpack(failed)}
