-- Let the entries for a session wait from now on, and mark in the own channel the last one before. ARGV: ID, node that claims it
-- or '', number of that node's request.
local id, owner = ARGV[4], call('HGET', p .. 'owner', ARGV[4])
if ARGV[5] ~= '' and (owner == me or owner == '*' .. me) then call('HSET', p .. 'claim', id, ARGV[5] .. ' ' .. ARGV[6]) end
if owner == me then
  call('HSET', p .. 'owner', id, '*' .. me)
  post(me, 'frozen', id, '')
end
