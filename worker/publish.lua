-- One partition's commit: results, call states and position together, or nothing.
-- KEYS: position, states, utterances, alerts, live:by_update, live:by_risk, then two per call: hash, stream
-- ARGV: expected token, new token, msgpack payload
-- Returns 'ok', or the token found: another owner has claimed the partition, or this server has lost writes.
local found = redis.call('HGET', KEYS[1], 'token')
if found == ARGV[2] then return 'ok' end -- the answer of an earlier try was lost
if found ~= ARGV[1] then return found or '' end

local p = cmsgpack.unpack(ARGV[3])

for i, call in ipairs(p.calls) do
  if call.first then redis.call('DEL', KEYS[6 + 2 * i]) end
  if call.state then
    redis.call('HSET', KEYS[2], call.id, call.state)
  else
    redis.call('HDEL', KEYS[2], call.id)
  end
end

for _, utterance in ipairs(p.utterances) do
  redis.call('XADD', KEYS[6 + 2 * utterance.call], utterance.number .. '-0', unpack(utterance.fields))
  redis.call('EXPIRE', KEYS[6 + 2 * utterance.call], p.call_ttl)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', p.length, '*', unpack(utterance.fields))
end

for i, call in ipairs(p.calls) do
  if call.fields then
    local hash, stream = KEYS[5 + 2 * i], KEYS[6 + 2 * i]
    redis.call('DEL', hash)
    redis.call('HSET', hash, unpack(call.fields))
    redis.call('EXPIRE', hash, call.ttl)
    redis.call('EXPIRE', stream, call.ttl)
    if call.live then
      redis.call('ZADD', KEYS[5], call.updated, call.id)
      redis.call('ZADD', KEYS[6], call.risk, call.id)
    else
      redis.call('ZREM', KEYS[5], call.id)
      redis.call('ZREM', KEYS[6], call.id)
    end
  end
end

for _, alert in ipairs(p.alerts) do
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', p.length, '*', unpack(alert))
end

-- Calls whose producer vanished leave the live sets with their hash.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', p.stale_before, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[5], id)
  redis.call('ZREM', KEYS[6], id)
end

redis.call('HSET', KEYS[1], 'token', ARGV[2], unpack(p.position))
for i = 1, 6 do redis.call('EXPIRE', KEYS[i], p.state_ttl) end
return 'ok'
