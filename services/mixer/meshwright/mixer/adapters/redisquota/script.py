"""The script that charges a cell inside Redis: one call, and so one decision at a time whoever asks.

The time is the server's. A cell is a hash of bucket numbers and the amounts that were granted in them; a fixed window
is one bucket. A rolling window forgets a bucket when all of it is out of the window: late rather than early.

KEYS: cell, deduplication id. ARGV: amount, limit, window and bucket in ms, whether it rolls (1), whether less is
welcome (1), for how many ms the id is remembered (0: there is none). Returns what was granted and for how many ms.
"""

CHARGE = """
local amount, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local window, bucket = tonumber(ARGV[3]), tonumber(ARGV[4])
local rolls, less, keep = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if keep > 0 then
  local before = redis.call('HMGET', KEYS[2], 'granted', 'ends')
  if before[1] then
    return {tonumber(before[1]), math.max(0, tonumber(before[2]) - now)}
  end
end

local current = math.floor(now / bucket)
local oldest = rolls and math.floor((now - window) / bucket) or current
local used, kept = 0, {}
local all = redis.call('HGETALL', KEYS[1])
for position = 1, #all, 2 do
  local number, taken = tonumber(all[position]), tonumber(all[position + 1])
  if number < oldest then
    redis.call('HDEL', KEYS[1], all[position])
  else
    used = used + taken
    kept[#kept + 1] = {number, taken}
  end
end

local granted, valid = 0, 0
if amount < 0 then
  -- Newest first, so that the rest keeps its age.
  table.sort(kept, function(a, b) return a[1] > b[1] end)
  for _, each in ipairs(kept) do
    local part = math.min(each[2], -amount - granted)
    if part > 0 then
      redis.call('HINCRBY', KEYS[1], string.format('%.0f', each[1]), string.format('%.0f', -part))
      granted = granted + part
    end
  end
else
  local left = math.max(0, limit - used)
  if amount <= left then
    granted = amount
  elseif less then
    granted = left
  end
  if granted > 0 then
    redis.call('HINCRBY', KEYS[1], string.format('%.0f', current), string.format('%.0f', granted))
    redis.call('PEXPIRE', KEYS[1], window + bucket)
    valid = rolls and window or (current + 1) * bucket - now
  end
end

if keep > 0 then
  redis.call('HSET', KEYS[2], 'granted', string.format('%.0f', granted), 'ends', string.format('%.0f', now + valid))
  redis.call('PEXPIRE', KEYS[2], keep)
end
return {granted, valid}
"""
