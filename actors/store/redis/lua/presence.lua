-- Who is in a channel. Entries that were not renewed in time are taken out first.
--
-- KEYS: presence (hash client -> info), presence_expiry (sorted set client -> expiry in ms), feed,
--       applied.
-- ARGV: 'enter', client, info, ttl_ms, record or '' | 'leave', client, info, 0, record or ''
--       | 'list'; then (but for 'list') the most records of the feed. The record goes to the feed as
--       a presence change, if there is one: who is there already does not join, who is not does
--       not leave.
-- Returns client, info, client, info ... for 'list'.

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms)
for from = 1, #gone, 1000 do
  local to = math.min(from + 999, #gone)
  redis.call('HDEL', KEYS[1], unpack(gone, from, to))
  redis.call('ZREM', KEYS[2], unpack(gone, from, to))
end

if ARGV[1] == 'list' then return redis.call('HGETALL', KEYS[1]) end
local changed
if ARGV[1] == 'enter' then
  changed = redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('ZADD', KEYS[2], now_ms + tonumber(ARGV[4]), ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
else
  changed = redis.call('HDEL', KEYS[1], ARGV[2])
  redis.call('ZREM', KEYS[2], ARGV[2])
end
if changed == 1 and ARGV[5] ~= '' then
  -- Its place may be that of a commit which somebody has not read yet: the number shows the gap.
  local seq = redis.call('HGET', KEYS[4], 'seq') or '0'
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'j', ARGV[5], 's', seq)
end
return {}
