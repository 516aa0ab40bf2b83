-- Enter the cluster, or enter it again after the engine has lost its data. ARGV: lease in ms, new epoch, epoch known before.
-- Returns the epoch. A node that knows another epoch keeps new IDs and pairings waiting until the others are back as well.
call('SET', p .. 'epoch', ARGV[5], 'NX')
local epoch = call('GET', p .. 'epoch')
if ARGV[6] ~= '' and ARGV[6] ~= epoch then call('SET', p .. 'grace', epoch, 'PX', 1000, 'NX') end
-- The data of an earlier primary about this node is not complete; the node restores its clients.
for _, id in ipairs(call('SMEMBERS', p .. 'ids:' .. me)) do
  call('HDEL', p .. 'owner', id)
  call('HDEL', p .. 'peer', id)
end
call('DEL', p .. 'ids:' .. me, p .. 'in:' .. me)
call('ZADD', p .. 'nodes', now() + ARGV[4], me)
call('HSET', p .. 'calls', me, ARGV[3])
call('SET', p .. 'beat', now())
return epoch
