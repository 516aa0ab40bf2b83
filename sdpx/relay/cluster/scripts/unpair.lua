-- End a pairing of a client of this node. ARGV: ID, pairing, reason for the peer.
part(ARGV[4], ARGV[6], ARGV[5])
