-- Has KEYS[1] have texts, without those that are over at ARGV[1]: each of what follows until the time behind it, or later if it did. Times
-- are in ms. The texts expire with the last of them.
redis.call('zremrangebyscore', KEYS[1], '-inf', ARGV[1])
local first, last = redis.call('exists', KEYS[1]) == 0, '0'
for i = 2, #ARGV, 2 do
	redis.call('zadd', KEYS[1], 'gt', ARGV[i + 1], ARGV[i])
	if tonumber(ARGV[i + 1]) > tonumber(last) then last = ARGV[i + 1] end
end
if first then
	redis.call('pexpireat', KEYS[1], last)
else
	redis.call('pexpireat', KEYS[1], last, 'gt')
end
return 1
