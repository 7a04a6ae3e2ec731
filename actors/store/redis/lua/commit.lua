#!lua flags=allow-oom
-- The atomic commit: all that one batch does to one target partition, or nothing.
--
-- KEYS: applied, feed, dead, queue; then meta, history, counters of each group; then one key for
--       each idempotency key.
-- ARGV[1]: MessagePack (old str format) of
--   claims   {{source, after, upto}, ...}
--   trim     id before which the queue is dropped, or ''
--   groups   {{channel, bodies, history_size, history_ttl_s, meta_ttl_s, once, counts, waits,
--             versions}, ...}
--            once: body's place -> {place in KEYS};  counts: place -> {name -> amount}
--            waits: place -> {source, token}
--            versions: place -> {decimal digits, epoch, entry}; nil where no body has one
--   acks     results known already, passed on in the feed record
--   dead     dead letters, ready to store
--   limits   {feed_records_max, dead_records_max, once_ttl_s}
--   epoch    for channels that have none yet
--   queued_at_ms
-- Returns {done, applied of each claim, results of awaited bodies}.
--
-- Nothing is written before every claim is known to hold, and no call after the first write can
-- fail on what a message holds: a script that fails half way is not rolled back.
--
-- allow-oom: a server at its `maxmemory` refuses what comes new into the queue, but commits go on, as
-- they are what empties it. With the flags line the server also checks before the first command,
-- and not at the first write, that it may write at all (replica, disk, replicas in reach): Redis 7.0
-- or newer, any Valkey.

local a = cmsgpack.unpack(ARGV[1])
local claims, trim, groups, acks, dead, limits = a[1], a[2], a[3], a[4], a[5], a[6]
local new_epoch, queued_at_ms = a[7], a[8]

local applied, holds = {}, 1
for i, claim in ipairs(claims) do
  applied[i] = redis.call('HGET', KEYS[1], claim[1]) or '0-0'
  if applied[i] ~= claim[2] then holds = 0 end
end
if holds == 0 then return {0, applied, {}} end

local results = {}

-- Add a body's amounts to the channel's counters and put the totals into its data.
local function count(body, amounts, key, ttl_s)
  local parts = {}
  for name, amount in pairs(amounts) do
    local total = redis.pcall('HINCRBY', key, name, string.format('%.0f', amount))
    if type(total) ~= 'number' then total = tonumber(redis.call('HGET', key, name)) or 0 end
    parts[#parts + 1] = cjson.encode(name) .. ':' .. string.format('%.0f', total)
  end
  redis.call('EXPIRE', key, ttl_s)
  return string.sub(body, 1, -3) .. ',"counts":{' .. table.concat(parts, ',') .. '}}}'
end

-- Tell whether a version is not above the one seen last; with an epoch: seen in the same one. What
-- one entry became may share a version. Digits, as Lua's numbers are not exact above 2^53.
local function is_stale(version, seen)
  local digits, epoch = version[1], version[2]
  local last = seen[1]
  if not last or (epoch ~= '' and epoch ~= seen[2]) then return false end
  if digits == last then return epoch ~= seen[2] or version[3] ~= seen[3] end
  if #digits == #last then return digits < last end
  return #digits < #last
end

-- Return the bodies that take effect, the place among them of each body (of one that is skipped:
-- of the last before it), and the earlier result of each that repeats an idempotency key.
local function keep(group, meta_key, counters_key)
  local bodies, once, counts, versions = group[2], group[6], group[7], group[9]
  if not (next(once) or next(counts) or versions) then return bodies, nil, nil end
  local kept, places, earlier = {}, {}, {}
  local mine = {}
  local found = versions and redis.call('HMGET', meta_key, 'v', 've')
  local seen = found
  for i, body in ipairs(bodies) do
    local key = once[i] and KEYS[once[i]]
    local result = key and redis.call('GET', key)
    if key and mine[key] then
      places[i] = mine[key]
    elseif result then
      earlier[i] = result
    else
      local version = versions and versions[i]
      if not (version and is_stale(version, seen)) then
        if version then seen = version end
        if counts[i] then body = count(body, counts[i], counters_key, group[5]) end
        kept[#kept + 1] = body
      end
      places[i] = #kept
      if key then mine[key] = #kept end
    end
  end
  if seen ~= found then redis.call('HSET', meta_key, 'v', seen[1], 've', seen[2]) end
  return kept, places, earlier
end

local function append(kept, group, meta_key, history_key)
  local size = group[3]
  if size == 0 then return 0, '' end
  local position = redis.call('HMGET', meta_key, 'o', 'e')
  local top, epoch = tonumber(position[1]) or 0, position[2]
  if not epoch then
    epoch = new_epoch
    redis.call('HSET', meta_key, 'e', epoch)
    redis.call('DEL', history_key)
  end
  for from = 1, #kept, 1000 do
    redis.call('RPUSH', history_key, unpack(kept, from, math.min(from + 999, #kept)))
  end
  if #kept > 0 then
    redis.call('LTRIM', history_key, -size, -1)
    redis.call('EXPIRE', history_key, group[4])
    redis.call('HSET', meta_key, 'o', string.format('%.0f', top + #kept))
  end
  redis.call('EXPIRE', meta_key, group[5])
  return top + 1, epoch
end

local function result_of(i, places, earlier, first, epoch)
  if earlier and earlier[i] then
    local offset, old_epoch = string.match(earlier[i], '^(%d+):(.*)$')
    return tonumber(offset), old_epoch
  end
  if first == 0 then return 0, '' end
  return first + (places and places[i] or i) - 1, epoch
end

local heads, published = {}, {}
for g, group in ipairs(groups) do
  local base = 4 + (g - 1) * 3
  local kept, places, earlier = keep(group, KEYS[base + 1], KEYS[base + 3])
  local first, epoch = append(kept, group, KEYS[base + 1], KEYS[base + 2])
  for i, place in pairs(group[6]) do
    if not earlier[i] then
      local offset, at = result_of(i, places, earlier, first, epoch)
      redis.call('SET', KEYS[place], string.format('%.0f', offset) .. ':' .. at, 'EX', limits[3])
    end
  end
  for i, wait in pairs(group[8]) do
    local offset, at = result_of(i, places, earlier, first, epoch)
    results[#results + 1] = {wait[1], wait[2], offset, at, ''}
  end
  if #kept > 0 then
    heads[#heads + 1] = {group[1], first, epoch, #kept}
    for _, body in ipairs(kept) do published[#published + 1] = body end
  end
end

for _, letter in ipairs(dead) do
  redis.call('XADD', KEYS[3], 'MAXLEN', limits[2], '*', 'd', letter)
end
for _, claim in ipairs(claims) do redis.call('HSET', KEYS[1], claim[1], claim[3]) end
if trim ~= '' then redis.call('XTRIM', KEYS[4], 'MINID', trim) end

for _, result in ipairs(results) do acks[#acks + 1] = result end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call(
  'XADD', KEYS[2], 'MAXLEN', '~', limits[1], '*',
  'h', cmsgpack.pack({seq, queued_at_ms, heads, acks}),
  'p', table.concat(published, '\n')
)
for i, claim in ipairs(claims) do applied[i] = claim[3] end
return {1, applied, results}
