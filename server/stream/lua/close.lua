-- Closes the log of a generation that SQL has settled. Idempotent. Needs no epoch: the row decides,
-- not the caller.
-- KEYS: state, events.  ARGV: terminal seq, terminal event, channel, retention (ms).
-- Returns 1 sealed: the log has the terminal event
--   | 0 gone: there is no log, or it lacked events and was deleted.

local state = redis.call("HMGET", KEYS[1], "seq", "closed")
if state[2] then
  return 1
end

local sealed = 0
if state[1] and tonumber(state[1]) == tonumber(ARGV[1]) - 1 then
  redis.call("XADD", KEYS[2], ARGV[1] .. "-0", "e", ARGV[2])
  redis.call("HSET", KEYS[1], "seq", ARGV[1], "closed", 1)
  redis.call("PEXPIRE", KEYS[1], ARGV[4])
  redis.call("PEXPIRE", KEYS[2], ARGV[4])
  sealed = 1
else
  redis.call("DEL", KEYS[1], KEYS[2])
end
redis.call("PUBLISH", ARGV[3], ARGV[2])
return sealed
