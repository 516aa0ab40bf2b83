-- Register clients that an empty engine does not know. ARGV: of each client its ID and "PAIRING PEER", or ''.
for at = 4, #ARGV, 2 do
  local id, pair = ARGV[at], ARGV[at + 1]
  local owner = call('HGET', p .. 'owner', id)
  if owner and owner ~= me then
    post(me, 'lost', id, '')
  else
    call('HSET', p .. 'owner', id, me)
    call('SADD', p .. 'ids:' .. me, id)
    if pair ~= '' then call('HSET', p .. 'peer', id, pair) end
  end
end
