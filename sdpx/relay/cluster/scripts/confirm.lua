-- Confirm a pairing that this node still has, or end it. ARGV: ID, pairing, peer, number of the last frame that the lost engine got.
local id, pairing, peer = ARGV[4], ARGV[5], ARGV[6]
local owner = call('HGET', p .. 'owner', id)
if owner ~= me and owner ~= '*' .. me then return end
if call('HGET', p .. 'peer', peer) == pairing .. ' ' .. id and call('HGET', p .. 'peer', id) == pairing .. ' ' .. peer then
  deliver(id, 'confirmed', pairing)
  deliver(peer, 'resent', pairing .. ' ' .. ARGV[7])
else
  part(id, 'node_lost', pairing)
  deliver(id, 'ended', pairing .. ' node_lost')
end
