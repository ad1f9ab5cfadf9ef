-- Take a partition over: from now on no commit of an earlier owner fits.
-- KEYS: position, states     ARGV: new token, owner, ttl in seconds, then the names of the clock's fields
-- Returns {{watermark or false, the clock's fields}, flat list of call id and state}
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'owner', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
local position = redis.call('HMGET', KEYS[1], 'watermark', unpack(ARGV, 4))
return {position, redis.call('HGETALL', KEYS[2])}
