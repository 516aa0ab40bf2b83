-- Answer a node that has asked for a session which this node does not give it: it has left for another node, or does not exist, or
-- the token is not valid. ARGV: ID, digest of the token, `last`, asking node, number of its request.
local id, digest, node, number = ARGV[4], ARGV[5], ARGV[7], ARGV[8]
if not call('ZSCORE', p .. 'nodes', node) then return end
local owner = call('HGET', p .. 'owner', id)
local state = owner == '*' and call('HMGET', p .. 'state:' .. id, 'd', 's')
if state and state[1] and string.find(state[1], digest, 1, true) then
  transfer(id, node, number, state[2])
elseif not owner or state or owner == me or owner == '*' .. me then
  post(node, 'denied', id, number)
else
  post(node, 'busy', id, number)
end
