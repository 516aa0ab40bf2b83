"""The fast lane: WebSockets of the plain kind, without a task or a library for each frame.

Nearly all traffic is one shape: whole, unfragmented, masked text frames, now and then a ping or a pong. The lane handles
that shape with a few functions on bytes. Whatever is unusual goes, from a frame's boundary on and for good, to wsproto, the
engine of trio-websocket. With `--no-fast-lane`, and under TLS, trio-websocket itself serves, and is the reference.

Why no frame can be lost, reordered or torn:

- **One reader.** `watch` calls a connection when its socket has bytes, and from `recv` to the outboxes that the frames end in
  there is no checkpoint. Bytes of a frame that is not whole yet are kept in `plain.Inbox`, in order.
- **One order.** The engine takes over where the lane stopped, at the first byte of a frame, and the lane never takes back.
- **One writer.** Everything that is sent, by whomever, goes through `Connection.send` of that connection: what the socket
  does not take at once waits in its outbox, and as long as anything waits there, all that follows does, too. A frame that
  left in part is at the head of the outbox with what is left of it.
- **One end.** `Connection.end` is called once. From then on nothing is read or queued; the connection's own task writes what
  still has to be said, under a deadline, and closes the socket; nobody else does.
"""
