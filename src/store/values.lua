-- What all scripts share; it stands before each of them, behind the policy, whose numbers are constants.
-- A constant is replaced by its value before a server gets the script.
--
-- The first byte of a value names its form: '\1' MessagePack (JSON for the ending of a request), '\2'
-- members of fixed length, laid out where they are read. A form that is not known is unreadable, and nothing
-- is written over it.
-- Instants are milliseconds since 1970 (UTC), in six bytes where lengths are fixed, 0 if there is none.
-- Instants decide; the TTL of a key only collects garbage.

local MAP <const> = '\1'
local FIXED <const> = '\2'
local FIXED_BYTE <const> = 2
-- A record that says nothing is written, too, and Redis takes no TTL of 0.
local SHORTEST_TTL_MS <const> = 10000
local HOUR_MS <const> = 3600000
local DAY_MS <const> = 86400000
local MONTH_MS <const> = 2592000000
-- What was made further in the future was made while the clock was wrong, and is over.
local CLOCK_STEP_MS <const> = 60000

-- The server's own time, unless a test sets it.
local function clock(injected)
  if injected ~= '' then
    return tonumber(injected)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
