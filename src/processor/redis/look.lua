-- The newest id of the stream KEYS[1], and what its key KEYS[2] says: "top last owner written".
local top = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then top = info[i + 1] end
  end
end
local key = redis.call('HMGET', KEYS[2], 'last', 'owner', 'written')
return top .. ' ' .. (key[1] or '0-0') .. ' ' .. (key[2] or '-') .. ' ' .. (key[3] or '')
