-- One partition's commit: results, call states and position together, or nothing.
-- KEYS: position, states, utterances, alerts, live:by_update, live:by_risk, live:by_alert, ended:by_time, pulse,
-- changes, then two per call: hash, stream
-- ARGV: expected token, new token, msgpack payload
-- Returns 'ok', or {'ok', '1' if states of the partition are gone, number of calls whose utterances are gone, the calls
-- whose aggregate or place in a list of live calls is gone}; or the token found: another owner has claimed the partition, or this server has lost writes.
local found = redis.call('HGET', KEYS[1], 'token')
if found == ARGV[2] then return 'ok' end -- the answer of an earlier try was lost
if found ~= ARGV[1] then return found or '' end

-- Redis does not roll back: what would fail in the middle must fail before the first write.
local kinds = {'hash', 'hash', 'stream', 'stream', 'zset', 'zset', 'zset', 'zset', 'zset', 'stream'}
for i, key in ipairs(KEYS) do
  local kind, wanted = redis.call('TYPE', key).ok, kinds[i] or (i % 2 == 1 and 'hash' or 'stream')
  if kind ~= 'none' and kind ~= wanted then
    local name = i <= #kinds and key or 'a key of a call' -- a call id may be a telephone number, and this is logged
    return redis.error_reply('WRONGTYPE ' .. name .. ' is a ' .. kind .. ', not a ' .. wanted)
  end
end

local p = cmsgpack.unpack(ARGV[3])

-- The wall clock of this server, in ms: one for all workers.
local seconds, micros = unpack(redis.call('TIME'))
local now = seconds * 1000 + math.floor(micros / 1000)
local function text(ms) return string.format('%.0f', ms) end

-- What is too old leaves the lists. First of all: where the user may not do this, nothing has been written yet.
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', text(now - p.ended_ttl * 1000))
redis.call('ZREMRANGEBYSCORE', KEYS[9], '-inf', text(now - p.state_ttl * 1000))

-- Keys of a call.
local function hash_of(i) return KEYS[9 + 2 * i] end
local function stream_of(i) return KEYS[10 + 2 * i] end

-- A server that evicts deletes whole keys. The owner writes states and aggregates again; `gone` stays until it has.
local known = tonumber(redis.call('HGET', KEYS[1], 'states') or '0')
local gone = redis.call('HGET', KEYS[1], 'gone') or '0'
if known > 0 and redis.call('EXISTS', KEYS[2]) == 0 then gone, known = '1', 0 end
local function is_shown(i, id) -- with its aggregate, and in the lists of live calls if it is live
  local status = redis.call('HGET', hash_of(i), 'status')
  if status ~= 'live' then return status end
  local alerts = redis.call('HGET', hash_of(i), 'alerts') or ''
  local is_listed = not alerts:find('"state":"raised"', 1, true) or redis.call('ZSCORE', KEYS[7], id)
  return is_listed and redis.call('ZSCORE', KEYS[5], id) and redis.call('ZSCORE', KEYS[6], id)
end
local mute, unknown = 0, {}
for i, call in ipairs(p.calls) do
  if call.told and redis.call('EXISTS', stream_of(i)) == 0 then mute = mute + 1 end
  -- No more than Lua returns at once; later commits find the others.
  if call.known and not call.fields and #unknown < 1000 and not is_shown(i, call.id) then
    unknown[#unknown + 1] = call.id
  end
end

-- A call that was erased after its record was written stays erased, also when all of Kafka is copied again.
local function was_erased(one)
  local at = one.logged and redis.call('HGET', one.erased, 'at')
  return at and tonumber(one.logged) <= tonumber(at)
end

for i, call in ipairs(p.calls) do
  call.gone = was_erased(call)
  if call.first then redis.call('DEL', stream_of(i)) end
  if call.state then
    known = known + redis.call('HSET', KEYS[2], call.id, call.state)
  else
    known = known - redis.call('HDEL', KEYS[2], call.id)
  end
end

for _, utterance in ipairs(p.utterances) do
  local stream = stream_of(utterance.call)
  if not p.calls[utterance.call].gone then
    -- The number is taken where a call goes on in another partition, because the topic has got more of them.
    if redis.pcall('XADD', stream, utterance.number .. '-0', unpack(utterance.fields)).err then
      redis.call('XADD', stream, '*', unpack(utterance.fields))
    end
    redis.call('EXPIRE', stream, p.call_ttl)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', p.length, '*', unpack(utterance.fields))
  end
end

for i, call in ipairs(p.calls) do
  if call.fields and not call.gone then
    local hash, stream = hash_of(i), stream_of(i)
    redis.call('DEL', hash)
    redis.call('HSET', hash, unpack(call.fields))
    redis.call('EXPIRE', hash, call.ttl)
    redis.call('EXPIRE', stream, call.ttl)
    if call.live then
      redis.call('ZADD', KEYS[5], call.updated, call.id)
      redis.call('ZADD', KEYS[6], call.risk, call.id)
      redis.call('ZREM', KEYS[8], call.id)
    else
      redis.call('ZREM', KEYS[5], call.id)
      redis.call('ZREM', KEYS[6], call.id)
      redis.call('ZADD', KEYS[8], text(now), call.id)
    end
    if call.alerted then
      redis.call('ZADD', KEYS[7], call.alerted, call.id)
    else
      redis.call('ZREM', KEYS[7], call.id)
    end
    redis.call('XADD', KEYS[10], 'MAXLEN', '~', p.length, '*', unpack(call.change))
  end
end

for _, alert in ipairs(p.alerts) do
  if not was_erased(alert) then
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', p.length, '*', unpack(alert.fields))
  end
end

-- Calls whose producer vanished leave the live sets after their hash: each commit looks at a few. Their scores tell
-- nothing, because they are times of gateways.
for _, id in ipairs(redis.call('ZRANDMEMBER', KEYS[5], 10)) do
  if redis.call('EXISTS', p.call_prefix .. id) == 0 then
    for i = 5, 7 do redis.call('ZREM', KEYS[i], id) end
  end
end
redis.call('ZADD', KEYS[9], text(now), p.source)

local left = p.whole and '0' or gone
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'states', known, 'gone', left, unpack(p.position))
for i = 1, #kinds do redis.call('EXPIRE', KEYS[i], p.state_ttl) end
if left == '1' or mute > 0 or #unknown > 0 then return {'ok', left, mute, unpack(unknown)} end
return 'ok'
