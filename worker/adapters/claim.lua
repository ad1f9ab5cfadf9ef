-- Take a partition over: from now on no commit of an earlier owner fits.
-- KEYS: position, states, position of partition 0
-- ARGV: new token, owner, ttl in seconds, cluster, topic id, group, number of partitions ('' where unknown), then the
-- names of the clock's fields
-- Returns {{watermark or false, the clock's fields}, flat list of call id and state, '1' if states are gone, number of
-- partitions when the first position was stored}; or, of a position that is somebody else's, {the field, what it says}.
local origin = {'cluster', 'topic_id', 'group'}
for i, name in ipairs(origin) do
  local found, ours = redis.call('HGET', KEYS[1], name), ARGV[3 + i]
  if found and found ~= '' and ours ~= '' and found ~= ours then return {name, found} end
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'owner', ARGV[2])
for i, name in ipairs(origin) do
  if ARGV[3 + i] ~= '' then redis.call('HSET', KEYS[1], name, ARGV[3 + i]) end
end
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])

local partitions = redis.call('HGET', KEYS[3], 'partitions')
if not partitions and KEYS[1] == KEYS[3] and ARGV[7] ~= '' then
  redis.call('HSET', KEYS[1], 'partitions', ARGV[7])
end

-- A server that evicts deletes whole keys: then the position knows of states that are not there.
local states = redis.call('HGETALL', KEYS[2])
local known = tonumber(redis.call('HGET', KEYS[1], 'states') or '0')
local gone = redis.call('HGET', KEYS[1], 'gone') or '0'
if known > 0 and #states == 0 then gone = '1' end
redis.call('HSET', KEYS[1], 'states', #states / 2, 'gone', '0')
return {redis.call('HMGET', KEYS[1], 'watermark', unpack(ARGV, 8)), states, gone, partitions or ''}
