-- Follows common.lua in every script but join and beat.
if not call('ZSCORE', p .. 'nodes', me) then return 'fenced' end
if tonumber(ARGV[3]) <= tonumber(call('HGET', p .. 'calls', me) or '0') then return 'repeated' end
call('HSET', p .. 'calls', me, ARGV[3])
