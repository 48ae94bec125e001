-- Appends events to a log that this epoch owns, and publishes the same bytes. Never creates.
-- KEYS: state, events.
-- ARGV: epoch, channel, time to live (ms), "whole" when this call has all missing events, else "",
--   then seq, event, seq, event …
-- Numbers follow each other from 2 on; only `restarted` may jump.
-- Returns 1 done | 0 lost: there is no log, or it lacks events before these
--   | -1 stale: another epoch owns it, or it is closed.

local state = redis.call("HMGET", KEYS[1], "epoch", "seq", "closed")
if not state[1] then
  return 0
end
if state[1] ~= ARGV[1] or state[3] then
  return -1
end

local seq, fresh, jumped = tonumber(state[2]), {}, false
for i = 5, #ARGV, 2 do
  local number = tonumber(ARGV[i])
  if number > seq then -- others were written by a call whose reply was lost
    if number ~= seq + 1 and not string.find(ARGV[i + 1], "^%d+ restarted ") then
      return 0
    end
    seq = number
    fresh[#fresh + 1] = i
  end
end

local published = {}
for n, i in ipairs(fresh) do
  redis.call("XADD", KEYS[2], ARGV[i] .. "-0", "e", ARGV[i + 1])
  published[n] = ARGV[i + 1]
end
if #fresh > 0 then
  redis.call("HSET", KEYS[1], "seq", seq)
  if tonumber(state[2]) == 1 then
    redis.call("PEXPIRE", KEYS[2], ARGV[3])
  end
  redis.call("PUBLISH", ARGV[2], table.concat(published, "\n"))
end
if ARGV[4] == "whole" then
  local info = redis.pcall("INFO", "server")
  if type(info) == "string" then
    redis.call("HSET", KEYS[1], "whole", string.match(info, "run_id:(%x+)"))
  end
end
return 1
