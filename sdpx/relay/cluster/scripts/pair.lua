-- Pair a client of this node with another client. ARGV: ID, target ID, number of the request.
local id, target, number = ARGV[4], ARGV[5], ARGV[6]
local owner, other = call('HGET', p .. 'owner', id), call('HGET', p .. 'owner', target)
if owner ~= me and owner ~= '*' .. me then return end
if call('EXISTS', p .. 'grace') == 1 then
  deliver(id, 'refused', number .. ' engine_unavailable')
elseif call('HEXISTS', p .. 'peer', id) == 1 then
  deliver(id, 'refused', number .. ' already_paired')
elseif not other then
  deliver(id, 'refused', number .. ' target_not_found')
elseif call('HEXISTS', p .. 'peer', target) == 1 then
  deliver(id, 'refused', number .. ' target_already_paired')
else
  local pairing = call('GET', p .. 'epoch') .. '-' .. call('INCR', p .. 'pairings')
  call('HSET', p .. 'peer', id, pairing .. ' ' .. target, target, pairing .. ' ' .. id)
  if owner == me and other == me then
    post(me, 'both_paired', id, number .. ' ' .. pairing .. ' ' .. target)
  else
    deliver(id, 'paired', number .. ' ' .. pairing .. ' ' .. target)
    deliver(target, 'paired', '0 ' .. pairing .. ' ' .. id)
  end
end
