-- Read a stretch of a channel's history, with its position; make the epoch where there is none.
--
-- KEYS: meta, history.
-- ARGV: since ('' or an offset), limit ('' or a count), reverse ('1' or '0'), meta_ttl_s, epoch.
-- Returns {top offset, epoch, offset of the first body returned, bodies oldest first}.

local position = redis.call('HMGET', KEYS[1], 'o', 'e')
local top, epoch = tonumber(position[1]) or 0, position[2]
if not epoch then
  epoch = ARGV[5]
  redis.call('HSET', KEYS[1], 'e', epoch)
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('DEL', KEYS[2])
end

local oldest = top - redis.call('LLEN', KEYS[2]) + 1
local since, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local from, to = oldest, top
if ARGV[3] == '1' then
  if since then
    -- A start that is not retained any more gives nothing, as Centrifugo has it.
    if since < oldest or since > top + 1 then return {top, epoch, 0, {}} end
    to = since - 1
  end
  if limit then from = math.max(from, to - limit + 1) end
else
  if since then from = math.max(from, since + 1) end
  if limit then to = math.min(to, from + limit - 1) end
end
if to < from then return {top, epoch, 0, {}} end
return {top, epoch, from, redis.call('LRANGE', KEYS[2], from - oldest, to - oldest)}
