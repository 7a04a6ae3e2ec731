-- Move dead letters of a partition to the end of its queue, each once.
--
-- KEYS: queue, dead.
-- ARGV: entries_max, MessagePack of {{place, channel, data, meta}, ...}.
-- Returns for each: 0 there is no such letter, 1 queued, 2 the queue is full and the letter kept.

local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local results = {}
for i, letter in ipairs(cmsgpack.unpack(ARGV[2])) do
  if #redis.call('XRANGE', KEYS[2], letter[1], letter[1]) == 0 then
    results[i] = 0
  elseif room <= 0 then
    results[i] = 2
  else
    -- XADD first: a server out of memory refuses it, and the letter must not be lost.
    if letter[4] == '' then
      redis.call('XADD', KEYS[1], '*', 'c', letter[2], 'd', letter[3])
    else
      redis.call('XADD', KEYS[1], '*', 'c', letter[2], 'd', letter[3], 'm', letter[4])
    end
    redis.call('XDEL', KEYS[2], letter[1])
    room = room - 1
    results[i] = 1
  end
end
return results
