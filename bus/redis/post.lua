-- Has KEYS[1] have the text ARGV[1] until ARGV[2], or later if it did, without those that are over at ARGV[3]. Times are in ms. The texts
-- expire with the last of them.
redis.call('zremrangebyscore', KEYS[1], '-inf', ARGV[3])
local first = redis.call('exists', KEYS[1]) == 0
redis.call('zadd', KEYS[1], 'gt', ARGV[2], ARGV[1])
if first then
	redis.call('pexpireat', KEYS[1], ARGV[2])
else
	redis.call('pexpireat', KEYS[1], ARGV[2], 'gt')
end
return 1
