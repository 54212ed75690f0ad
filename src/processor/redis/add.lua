-- Adds entries to the stream KEYS[1], and notes in the same step in KEYS[2] which lines it holds then; nothing
-- where that key is not as it was expected. ARGV: owner, written and last as expected, written and last as they
-- become, the bound or 0; then for each entry its id, the number of words that follow, and the words.
-- The first XADD is the only one that can fail for its id: ids rise, so no part of the entries is ever added.
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
