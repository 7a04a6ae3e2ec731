-- Leave notes in the box of an edge as far as there is room.
--
-- KEYS: open (there while the edge has a box), box.
-- ARGV: notes_max, the notes.
-- Returns how many were accepted; -1: there is no such box.

local left_ms = redis.call('PTTL', KEYS[1])
if left_ms < 0 then return -1 end
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[2])
local accepted = math.max(0, math.min(room, #ARGV - 1))
for i = 1, accepted do
  redis.call('XADD', KEYS[2], '*', 'n', ARGV[i + 1])
end
-- What an edge that died has not taken goes with it.
redis.call('PEXPIRE', KEYS[2], left_ms)
return accepted
