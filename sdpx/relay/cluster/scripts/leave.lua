-- Leave the cluster; the node's remaining clients are removed. ARGV: reason.
for _, id in ipairs(call('SMEMBERS', p .. 'ids:' .. me)) do
  local owner = call('HGET', p .. 'owner', id)
  if owner == me or owner == '*' .. me then drop(id, ARGV[4]) end
end
call('DEL', p .. 'ids:' .. me, p .. 'in:' .. me)
call('ZREM', p .. 'nodes', me)
call('HDEL', p .. 'calls', me)
