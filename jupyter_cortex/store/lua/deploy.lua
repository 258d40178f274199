-- Record a deployment: a new version, or an in-place change when only what needs no restart differs.
-- ARGV: spec, spec hash, handler hash, source, take over (1|0), force (1 = whatever is going on, 2 = a new version even if nothing changed, 0), endpoint, replicas, what the audit
-- says beside time and version (JSON members, or '' for nothing), then field/value pairs of the deployment.
-- Returns {outcome, version, detail}: created | updating | up_to_date | changed | busy | source | deleting.
local spec, spec_hash, handler_hash, source, take_over, force = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6] == '1'
local anew = ARGV[6] ~= '0'
local api = p .. ':api'
local old = redis.call('HMGET', api, 'live', 'wanted', 'source', 'next')
local known = redis.call('EXISTS', api) == 1
if redis.call('EXISTS', p .. ':deleting') == 1 then return {'deleting', 0, ''} end
if known and old[3] and old[3] ~= source and not take_over then return {'source', 0, old[3]} end
local wanted = old[2]
if known and wanted then
  local w = redis.call('HMGET', p .. ':dep:' .. wanted, 'state', 'spec_hash', 'handler_hash')
  local going = w[1] == 'pending' or w[1] == 'starting'
  if w[2] == spec_hash and w[1] ~= 'failed' and w[1] ~= 'stopped' and not anew then return {'up_to_date', tonumber(wanted), w[1]} end
  if going and not force then return {'busy', tonumber(wanted), ''} end
  if w[1] == 'live' and w[3] == handler_hash and not anew then
    redis.call('HSET', p .. ':dep:' .. wanted, 'spec', spec, 'spec_hash', spec_hash, 'changed', now)
    -- What a refresh or a rollback deploys again is what was written last.
    for i = 10, #ARGV, 2 do
      if ARGV[i] == 'raw_spec' or ARGV[i] == 'min_replicas' then redis.call('HSET', p .. ':dep:' .. wanted, ARGV[i], ARGV[i + 1]) end
    end
    redis.call('HSET', api, 'spec', spec, 'endpoint', ARGV[7], 'source', source, 'updated', now)
    return {'changed', tonumber(wanted), ''}
  end
  if going then redis.call('HSET', p .. ':dep:' .. wanted, 'state', 'stopped', 'stopped_at', now) end
end
local n = tonumber(old[4] or 0) + 1
local dep = p .. ':dep:' .. n
redis.call('HSET', dep, 'state', 'pending', 'spec', spec, 'spec_hash', spec_hash, 'handler_hash', handler_hash, 'source', source,
  'replicas', ARGV[8], 'created', now)
for i = 10, #ARGV, 2 do redis.call('HSET', dep, ARGV[i], ARGV[i + 1]) end
redis.call('SADD', p .. ':active', n)
redis.call('HSET', api, 'next', n, 'wanted', n, 'source', source, 'updated', now)
if not old[1] then redis.call('HSET', api, 'spec', spec, 'endpoint', ARGV[7]) end
if not known then redis.call('HSET', api, 'gate', 'closed', 'created', now) end
event('deployment', n .. ' pending')
if ARGV[9] ~= '' then
  redis.call('LPUSH', p .. ':audit', '{"at": ' .. now .. ARGV[9] .. ', "version": ' .. n .. '}')
  redis.call('LTRIM', p .. ':audit', 0, AUDITS - 1)
end
flush()
return {known and 'updating' or 'created', n, ''}
