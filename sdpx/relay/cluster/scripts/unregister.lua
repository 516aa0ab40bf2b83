-- Free the ID of a client of this node. ARGV: ID, reason for its peer.
local id, owner = ARGV[4], call('HGET', p .. 'owner', ARGV[4])
if owner == me or owner == '*' .. me then
  drop(id, ARGV[5])
  call('SREM', p .. 'ids:' .. me, id)
end
