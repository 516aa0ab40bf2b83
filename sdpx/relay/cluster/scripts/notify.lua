-- Notify the sender of a frame that was not delivered. ARGV: sender, pairing and receiver.
deliver(ARGV[4], 'unread', ARGV[5])
