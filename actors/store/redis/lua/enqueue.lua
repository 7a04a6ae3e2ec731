-- Append messages to a queue as far as there is room, each once.
--
-- KEYS: queue, producer (the last number accepted of a numbered producer).
-- ARGV: entries_max, first_number (0: not numbered), producer_ttl_s, begins ('1' or '0'),
--       MessagePack of {{channel, data, meta}, ...}.
-- Returns how many of the messages are in the queue now, or were before; -1: the numbers do not
-- follow on those accepted, and nothing was done.

local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local number = tonumber(ARGV[2])
local numbered = number > 0
local last = numbered and tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if number > last + 1 then
  -- Accepted, they would make those left out count as accepted when they come.
  if ARGV[4] ~= '1' then return -1 end
  last = number - 1
end
local accepted = 0
for _, message in ipairs(cmsgpack.unpack(ARGV[5])) do
  if not (numbered and number <= last) then
    if room <= 0 then break end
    if message[3] == '' then
      redis.call('XADD', KEYS[1], '*', 'c', message[1], 'd', message[2])
    else
      redis.call('XADD', KEYS[1], '*', 'c', message[1], 'd', message[2], 'm', message[3])
    end
    room = room - 1
    last = number
  end
  number = number + 1
  accepted = accepted + 1
end
if numbered and accepted > 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', last), 'EX', ARGV[3])
end
return accepted
