-- Renew the lease, remove the nodes whose lease is over and the sessions that no node has claimed. ARGV: lease in ms, number of
-- the last call that was answered. Returns epoch, number of nodes, ms until the next lease is over, then node and clients of
-- each removed node; or 'fenced' for a node that is not in the cluster, 'lost' if the engine has forgotten some of its calls.
local lease, time = tonumber(ARGV[4]), now()
if not call('ZSCORE', p .. 'nodes', me) then return {call('GET', p .. 'epoch') or '', 'fenced'} end
local epoch = call('GET', p .. 'epoch')
if not epoch or tonumber(call('HGET', p .. 'calls', me) or '0') < tonumber(ARGV[5]) then return {'', 'lost'} end
-- No node has renewed a lease for long: the engine stood still, and every node gets the time to come back.
if time - tonumber(call('GET', p .. 'beat') or '0') > lease * 0.75 then
  for _, node in ipairs(call('ZRANGE', p .. 'nodes', 0, -1)) do call('ZADD', p .. 'nodes', time + lease, node) end
end
call('SET', p .. 'beat', time)
call('ZADD', p .. 'nodes', time + lease, me)
local removed = {}
for _, node in ipairs(call('ZRANGEBYSCORE', p .. 'nodes', '-inf', time)) do
  local ids = call('SMEMBERS', p .. 'ids:' .. node)
  removed[#removed + 1] = node
  removed[#removed + 1] = tostring(#ids)
  call('ZREM', p .. 'nodes', node)
  call('HDEL', p .. 'calls', node)
  for _, id in ipairs(ids) do
    local owner = call('HGET', p .. 'owner', id)
    if owner == node or owner == '*' .. node then drop(id, 'node_lost') end
  end
  call('DEL', p .. 'ids:' .. node, p .. 'in:' .. node)
end
for _, id in ipairs(call('ZRANGEBYSCORE', p .. 'parked', '-inf', time)) do drop(id, 'closed') end
-- The keys that a crash of all nodes would leave behind expire; first the epoch, so that no node takes the rest for complete.
for _, key in ipairs({'nodes', 'calls', 'owner', 'peer', 'claim', 'parked', 'pairings', 'beat', 'ids:' .. me, 'in:' .. me}) do
  call('PEXPIRE', p .. key, 120000)
end
call('PEXPIRE', p .. 'epoch', 60000)
local first = call('ZRANGE', p .. 'nodes', 0, 0, 'WITHSCORES')
return {epoch, call('ZCARD', p .. 'nodes'), first[2] - time, unpack(removed)}
