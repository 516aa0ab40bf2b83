-- Write the state of a frozen session, for the node that claims it or for any. ARGV: ID, digests of its tokens, session, window
-- in ms.
local id = ARGV[4]
if call('HGET', p .. 'owner', id) ~= '*' .. me then return end
call('SREM', p .. 'ids:' .. me, id)
local node, number = string.match(call('HGET', p .. 'claim', id) or '', '^(%S+) (%S+)$')
if node and call('ZSCORE', p .. 'nodes', node) then
  transfer(id, node, number, ARGV[6])
else
  call('HSET', p .. 'owner', id, '*')
  call('HDEL', p .. 'claim', id)
  call('HSET', p .. 'state:' .. id, 'd', ARGV[5], 's', ARGV[6])
  call('PEXPIRE', p .. 'state:' .. id, ARGV[7] + 60000)
  call('PEXPIRE', p .. 'wait:' .. id, ARGV[7] + 60000)
  call('ZADD', p .. 'parked', now() + ARGV[7], id)
end
