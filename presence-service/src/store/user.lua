-- One step of a user's presence. The rules are those of `presence.rs`, which says why.
-- KEYS 1 user: hash of sessions (25 bytes: 's', boot, connection -> "number idle ended"), choice, chosen (its version),
--        state, version, seen, left (last sign of life of an ended session), unsaid (when a transition was made that
--        nobody confirmed), hidden (sessions of somebody who is offline to others)
-- ARGV 1 'session' | 'end' | 'sweep' | 'choose' | 'check'
--      2 grace in ms  3 how long an offline user is kept, in ms  4 after how many ms an unconfirmed transition is repeated
--      5 session  6 number  7 idle: 0 or 1  8 when it ended, 0: now
--      9 choice, or nothing  10 its version, 0: it is stored nowhere
--      11 ... boot, last sign of life of each gateway that is being cleared
-- Returns {1 when there is a transition to publish, state, version, seen or 0, when to check again or 0}.

local MAX_ENDED = 32
local verb, grace, keep, resay = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
local key = KEYS[1]
local user, sessions, ghosts = {}, {}, 0

local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  if #all[i] == 25 then
    local number, idle, ended = string.match(all[i + 1], '^(%d+) (%d) (%d+)$')
    sessions[all[i]] = {number = number, idle = idle, ended = tonumber(ended)}
    if tonumber(ended) > 0 then
      ghosts = ghosts + 1
    end
  else
    user[all[i]] = all[i + 1]
  end
end

local function store(id)
  local session = sessions[id]
  redis.call('HSET', key, id, session.number .. ' ' .. session.idle .. ' ' .. text(session.ended))
end

local function note_left(at)
  if at > tonumber(user.left or '0') then
    user.left = text(at)
    redis.call('HSET', key, 'left', user.left)
  end
end

local function over(id, at)
  note_left(at)
  local session = sessions[id]
  if session.ended == 0 and ghosts >= MAX_ENDED then
    redis.call('HDEL', key, id)
    sessions[id] = nil
    return
  end
  if session.ended == 0 then
    session.ended = at
  end
  store(id)
end

local function choose(choice, version)
  if version ~= '0' then
    if tonumber(version) <= tonumber(user.chosen or '0') then
      return
    end
    user.chosen = version
    redis.call('HSET', key, 'chosen', version)
  end
  if choice == 'online' then
    user.choice = nil
    redis.call('HDEL', key, 'choice')
  else
    user.choice = choice
    redis.call('HSET', key, 'choice', choice)
  end
end

-- 1. The step itself.
local repeated = false
if verb == 'choose' then
  choose(ARGV[9], ARGV[10])
elseif verb ~= 'check' then
  local id, number = ARGV[5], tonumber(ARGV[6])
  local known = sessions[id]
  local at = tonumber(ARGV[8])
  if at == 0 then
    at = now
  end
  if known and tonumber(known.number) >= number then
    -- The very same operation again: its answer may have been lost on the way.
    repeated = tonumber(known.number) == number
  elseif verb == 'session' then
    sessions[id] = {number = ARGV[6], idle = ARGV[7], ended = 0}
    store(id)
    if ARGV[9] ~= '' then
      choose(ARGV[9], ARGV[10])
    end
  elseif known then
    if verb == 'end' then
      known.number = ARGV[6]
    end
    over(id, at)
  end
end

-- 2. What the sessions add up to.
local present, active, connected, due = false, false, false, 0
for id, session in pairs(sessions) do
  if session.ended > 0 and session.ended + grace <= now then
    redis.call('HDEL', key, id)
  else
    local ended = session.ended
    if ended == 0 then
      connected = true
      for i = 11, #ARGV, 2 do
        if ARGV[i] == string.sub(id, 2, 17) then
          ended = tonumber(ARGV[i + 1])
          note_left(ended)
        end
      end
    elseif due == 0 or ended + grace < due then
      due = ended + grace
    end
    if ended == 0 or ended + grace > now then
      present = true
      active = active or session.idle == '0'
    end
  end
end
local state = 'offline'
if present and user.choice ~= 'invisible' then
  state = user.choice or (active and 'online' or 'away')
end

local hidden = present and state == 'offline'
if hidden ~= (user.hidden ~= nil) then
  if hidden then
    redis.call('HSET', key, 'hidden', '1')
  else
    redis.call('HDEL', key, 'hidden')
  end
end

-- 3. Whether that is to be told.
local tell = 0
if state ~= (user.state or 'offline') then
  tell = 1
  user.state = state
  user.version = text(math.max(tonumber(user.version or '0') + 1, now))
  redis.call('HSET', key, 'state', state, 'version', user.version, 'unsaid', text(now))
  if state == 'offline' then
    -- Who becomes invisible is last seen now.
    user.seen = present and text(now) or user.left or text(now)
    redis.call('HSET', key, 'seen', user.seen)
  end
elseif user.unsaid and (repeated or now - tonumber(user.unsaid) > resay) then
  tell = 1
  redis.call('HSET', key, 'unsaid', text(now))
end
if connected then
  redis.call('PERSIST', key)
else
  redis.call('PEXPIRE', key, keep)
end
return {tell, state, tonumber(user.version or '0'), tonumber(user.seen or '0'), due}
