-- Adds entries to the stream KEYS[1], and in the same step notes in the key KEYS[2] which lines the stream was given. Does
-- nothing if that key is not as expected. ARGV: owner, written and last as expected, the new written and last, the
-- bound or 0; then for each entry its id, the number of words that follow, and the words.
-- Only the first XADD can fail because of its id: ids rise. So entries are never added in part.
local key = redis.call('HMGET', KEYS[2], 'owner', 'written', 'last')
if (key[1] or ARGV[1]) ~= ARGV[1] or (key[2] or '') ~= ARGV[2] or (key[3] or '0-0') ~= ARGV[3] then
  return 'changed'
end
local at = 7
while at < #ARGV do
  local words = tonumber(ARGV[at + 1])
  redis.call('XADD', KEYS[1], ARGV[at], unpack(ARGV, at + 2, at + 1 + words))
  at = at + 2 + words
end
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'written', ARGV[4], 'last', ARGV[5])
if ARGV[6] ~= '0' then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[6])
end
return 'OK'
