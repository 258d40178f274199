-- One piece of a large body, kept where its submit will find it: those behind it wait for the disk to take a piece, not 10 MB.
-- ARGV: id, token of the upload, offset, bytes. Returns how many bytes are there: the place where the next piece goes. A piece that does not fit there is
-- left out, so one that is said twice does no harm; -1 where other bytes stand in its place. What is never submitted goes after an hour.
local pieces = p .. ':u:' .. ARGV[1] .. ':' .. ARGV[2]
local there = redis.call('STRLEN', pieces)
if there == tonumber(ARGV[3]) then
  there = redis.call('APPEND', pieces, ARGV[4])
  redis.call('EXPIRE', pieces, 3600)
elseif there >= ARGV[3] + #ARGV[4] and redis.call('GETRANGE', pieces, ARGV[3], ARGV[3] + #ARGV[4] - 1) ~= ARGV[4] then
  return -1
end
return there
