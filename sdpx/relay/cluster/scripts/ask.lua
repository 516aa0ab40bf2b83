-- Ask for a session. ARGV: ID, digest of the token, `last`, number of the request, node that has been asked before.
-- Posts `asking` with the node that is asked, `claimed`, `denied`, or `busy` if the session went to another node meanwhile.
local id, digest, number, asked = ARGV[4], ARGV[5], ARGV[7], ARGV[8]
local owner = call('HGET', p .. 'owner', id)
local state = owner == '*' and call('HMGET', p .. 'state:' .. id, 'd', 's')
local node = owner and string.gsub(owner, '^%*', '')
if state and state[1] and string.find(state[1], digest, 1, true) then
  transfer(id, me, number, state[2])
elseif not owner or state then
  post(me, 'denied', id, number)
elseif node ~= me and asked == '' then
  post(node, 'asked', id, digest .. ' ' .. ARGV[6] .. ' ' .. me .. ' ' .. number)
  post(me, 'asking', id, number .. ' ' .. node)
elseif node ~= me and node ~= asked then
  post(me, 'busy', id, number)
end
