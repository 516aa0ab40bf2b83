-- Relay frames, in order. ARGV: capacity of a channel, capacity of a moving session, then of each frame: receiver, sender, head,
-- body. The head begins with the pairing. A frame that is one too many is replaced by an empty one; its sender is notified.
local channel, moving = tonumber(ARGV[4]), tonumber(ARGV[5])
for at = 6, #ARGV, 4 do
  local id, head, body = ARGV[at], ARGV[at + 2], ARGV[at + 3]
  local owner = call('HGET', p .. 'owner', id)
  if owner then
    local is_full
    if string.sub(owner, 1, 1) == '*' then
      is_full = call('LLEN', p .. 'wait:' .. id) >= moving
    else
      is_full = call('XLEN', p .. 'in:' .. owner) >= channel
    end
    if is_full then
      body = ''
      deliver(ARGV[at + 1], 'unread', string.match(head, '^%S+') .. ' ' .. id)
    end
    deliver(id, 'frame', head .. '\n' .. body)
  end
end
