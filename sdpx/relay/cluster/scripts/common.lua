-- The beginning of every script that a member of the cluster runs. ARGV: prefix, node, number of the call, then the script's own.
--
-- Keys, each with the prefix:
--   nodes        sorted set: node -> engine time in ms at which its lease is over. Membership is the fence: a node that a
--                sweep has removed can change nothing any more.
--   calls        hash: node -> number of its last call, so that a call which is repeated after a lost connection has no effect
--   owner        hash: client ID -> NODE, *NODE while the session moves away from it, or * while no node has the session
--   peer         hash: client ID -> "PAIRING PEER"; a pair is whole if each names the other under the same pairing
--   claim        hash: client ID -> "NODE NUMBER", the node that waits for a moving session
--   ids:NODE     set: the client IDs of a node
--   in:NODE      stream: the node's channel, read by it alone. Entries: t (type), i (client ID), d (data)
--   wait:ID      list: the entries for a moving session
--   state:ID     hash: d (digests of its tokens), s (the session)
--   parked       sorted set: client ID -> engine time at which a session that no node claims ends
--   epoch        string: made by the first node of an empty engine; pairings: counter
local p, me = ARGV[1], ARGV[2]
local call = redis.call

local function post(node, kind, id, data)
  call('XADD', p .. 'in:' .. node, '*', 't', kind, 'i', id, 'd', data)
end

-- Give an entry to the node of a client, or keep it behind its moving session. False if there is no such client.
local function deliver(id, kind, data)
  local owner = call('HGET', p .. 'owner', id)
  if not owner then return false end
  if string.sub(owner, 1, 1) == '*' then
    call('RPUSH', p .. 'wait:' .. id, cmsgpack.pack({kind, data}))
    call('PEXPIRE', p .. 'wait:' .. id, math.max(call('PTTL', p .. 'state:' .. id), 60000))
  else
    post(owner, kind, id, data)
  end
  return true
end

-- End the pairing of a client, if it is this one or none is named; its peer is notified.
local function part(id, reason, only)
  local pair = call('HGET', p .. 'peer', id)
  if not pair then return end
  local pairing, other = string.match(pair, '^(%S+) (.+)$')
  if only and only ~= pairing then return end
  call('HDEL', p .. 'peer', id)
  if call('HGET', p .. 'peer', other) == pairing .. ' ' .. id then
    call('HDEL', p .. 'peer', other)
    deliver(other, 'ended', pairing .. ' ' .. reason)
  end
end

-- Remove a client and everything that is kept for it.
local function drop(id, reason)
  part(id, reason)
  call('HDEL', p .. 'owner', id)
  call('HDEL', p .. 'claim', id)
  call('DEL', p .. 'wait:' .. id, p .. 'state:' .. id)
  call('ZREM', p .. 'parked', id)
end

-- Give a moving session to a node: the session first, then the waiting entries in their order.
local function transfer(id, node, number, session)
  local waiting = call('LRANGE', p .. 'wait:' .. id, 0, -1)
  call('HSET', p .. 'owner', id, node)
  call('SADD', p .. 'ids:' .. node, id)
  post(node, 'claimed', id, number .. ' ' .. #waiting .. '\n' .. session)
  for _, entry in ipairs(waiting) do
    local kind, data = unpack(cmsgpack.unpack(entry))
    post(node, kind, id, data)
  end
  call('HDEL', p .. 'claim', id)
  call('DEL', p .. 'wait:' .. id, p .. 'state:' .. id)
  call('ZREM', p .. 'parked', id)
end

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
