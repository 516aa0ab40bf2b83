-- Take an ID for a client. ARGV: ID, number of the request.
local id = ARGV[4]
if call('EXISTS', p .. 'grace') == 1 then
  post(me, 'unavailable', id, ARGV[5])
elseif call('HEXISTS', p .. 'owner', id) == 1 then
  post(me, 'taken', id, ARGV[5])
else
  call('HSET', p .. 'owner', id, me)
  call('SADD', p .. 'ids:' .. me, id)
  post(me, 'registered', id, ARGV[5])
end
