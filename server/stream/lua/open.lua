-- Creates the log of a generation, or takes it over for a higher epoch. No other script does.
-- KEYS: state, events.  ARGV: epoch, deadline (µs of this server's clock), time to live (ms),
--   "first" when no earlier attempt can have written, else "",
--   "entries" when the caller does not have them yet, else "".
-- Returns {"late"} | {"stale"} | {"closed"}
--   | {"open", whole (1 if no event was ever lost, else 0), seq, entries}.

local time = redis.call("TIME")
if time[1] * 1000000 + time[2] > tonumber(ARGV[2]) then
  return {"late"} -- the SQL beat that allowed this call is too old: another attempt may own the log
end

-- A user without the right to INFO gets an error: then a log that is adopted counts as incomplete.
local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and string.match(info, "run_id:(%x+)")
local state = redis.call("HMGET", KEYS[1], "epoch", "seq", "closed", "whole")
local epoch, seq, whole = state[1], tonumber(state[2]), state[4]

if epoch and tonumber(epoch) > tonumber(ARGV[1]) then
  return {"stale"}
end
if state[3] then
  return {"closed"}
end
if epoch and seq > 1 then
  local last = redis.call("XREVRANGE", KEYS[2], "+", "-", "COUNT", 1)[1]
  if not last or last[1] ~= string.format("%d-0", seq) then
    epoch = false -- part of it is gone
  end
end
if not epoch then
  redis.call("DEL", KEYS[1], KEYS[2])
  -- A new log of a later attempt may have lost events.
  seq, whole = 1, ARGV[4] == "first"
  redis.call("HSET", KEYS[1], "seq", seq, "whole", whole and run_id or "")
else
  whole = run_id and whole == run_id
end
redis.call("HSET", KEYS[1], "epoch", ARGV[1])
redis.call("PEXPIRE", KEYS[1], ARGV[3])
redis.call("PEXPIRE", KEYS[2], ARGV[3])
local entries = ARGV[5] == "entries" and redis.call("XRANGE", KEYS[2], "-", "+") or {}
return {"open", whole and 1 or 0, seq, entries}
