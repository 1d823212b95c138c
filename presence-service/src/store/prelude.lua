-- Put before each script: the server's own clock, and the epoch.

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- %.14g, which `..` and replies use, would cut an instant short one day.
local function text(number)
  return string.format('%.0f', number)
end

-- Returns the epoch, and whether it was missing and is made by this very call.
local function epoch(key, random, now)
  local found = redis.call('GET', key)
  if found then
    return found, false
  end
  local made = random .. ':' .. text(now)
  redis.call('SET', key, made)
  return made, true
end
