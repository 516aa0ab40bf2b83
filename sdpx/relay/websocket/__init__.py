"""The fast lane: WebSockets of the plain kind, without a task or a library for each frame.

Nearly all traffic is one shape: a plain request, then whole, unfragmented, masked text frames, now and then a ping or a pong,
at last a close. The lane handles that shape with a few functions on bytes. Whatever else comes goes, from a frame's boundary
on and for good, to wsproto, the engine of trio-websocket: it is public and synchronous, so it needs no second task and no
fence to keep order. With `--engine trio-websocket` trio-websocket itself serves, and is the reference.

    doorstep    who has connected and said nothing yet                          else a task, which reads at leisure
    upgrade     is this request a plain one?                                    else relay.http and relay.handshake
    watch       one epoll for all sockets: reads many, lets them be taken,      else a task for each socket
                and writes what that led to, a batch at a time
    alarms      who is to be called when: pings, silence, deadlines
    plain       bytes to whole frames and back                                  else careful, which has the library
    connection  what a frame leads to, what is sent, how it ends

Why no frame can be lost, reordered or torn:

- **One reader.** `watch` reads a socket that has bytes, and gives them to its connection before it reads it again. From `recv`
  to the outboxes that the frames end in there is no checkpoint, so nobody comes in between; where a batch takes too long, what
  was read is taken first in the next one. Bytes of a frame that is not whole stay in `plain.FastParser`, in order.
- **One order.** Where the lane stops, at the first byte of a frame, the engine goes on, and the lane never takes back.
- **One queue.** Everything that is sent to a client, by whomever, is put into its outbox. Only `on_writable` takes out, at
  the end of a batch or when the socket has room again: from the front, and a frame only once all of it has left. What left
  in part stays at the head, with a count of how much; the next write goes on from there.
- **One end.** `end` happens once: from then on nothing is read or queued, and the relay knows. At the end of the batch `finish`
  closes at once who is gone, and who said goodbye and can be answered. For all others `close_gracefully`, in a task, writes the rest
  of a frame that is half out, what else may still be said, and the close frame, under deadlines. Whose frames were not sent
  hears that: from the outbox the relay knows who they are.
- **One owner.** Only `finish` and `close_gracefully` close the socket, once, and `watch` has forgotten it by then.

A text goes to `ConnectionHandler.on_text` as the bytes that it came as. Nearly every frame that is relayed is known there at a glance, and
goes to its peer's outbox with nothing decoded, decided or built that it does not need; all others are decoded and take the
relay's usual way, `ConnectionHandler.on_frame`. Both are one step: a frame that takes the one never overtakes a frame that takes the other.

A connection has no task while nothing has to be waited for: that is most of what made it small, and quick to open. Most of what
made it quick to write to is the batch: a client that sleeps is woken by its first frame, which costs its sender more than all
else about it, and is still awake for the others.
"""
