// A page with the perfect negotiation of W3C WebRTC, 10.7, that offers again while its data channel is open.
//
// A scenario has `relay`, `target` (the ID to pair with; null: wait for a pairing), `polite`, and `eager`: the page creates a channel, and so
// an offer, as soon as it is paired. With `negotiated` both sides create the channel, with this ID. The commands are messages on the channel:
// "track" adds a transceiver, "restart" restarts ICE, "second" opens a second channel; other messages are echoed. Each renegotiation is
// reported when its answer is set.

export function runPerfect(scenario, { RTCPeerConnection, WebSocket }, report) {
  const relay = new WebSocket(scenario.relay);
  const pc = new RTCPeerConnection({ iceServers: [] });
  let peer = null, makingOffer = false, ignoreOffer = false;
  const send = (frame) => relay.send(JSON.stringify({ ...frame, peer_id: peer }));
  const fail = (error) => report("failed", { reason: String(error?.stack ?? error) });
  const guarded = (action) => async (...args) => { try { await action(...args); } catch (error) { fail(error); } };

  pc.onnegotiationneeded = guarded(async () => {
    try {
      makingOffer = true;
      await pc.setLocalDescription();
      send({ type: "offer", sdp: pc.localDescription.sdp });
    } finally {
      makingOffer = false;
    }
  });
  pc.onicecandidate = ({ candidate }) => send({ type: "candidate", candidate });
  pc.oniceconnectionstatechange = () => report("ice", { state: pc.iceConnectionState });
  pc.ondatachannel = ({ channel }) => use(channel);

  function use(channel) {
    channel.onopen = () => report("open", { label: channel.label });
    channel.onmessage = ({ data }) => {
      if (data === "track") pc.addTransceiver("audio");
      else if (data === "restart") pc.restartIce();
      else if (data === "second") use(pc.createDataChannel("second"));
      else channel.send(channel.label === "second" ? `second ${data}` : `echo ${data}`);
    };
    channel.onclose = () => { report("closed", { label: channel.label }); };
    if (channel.readyState === "open") channel.onopen();
  }

  const on = {
    your_id({ id }) {
      report("id", { id });
      if (scenario.target) relay.send(JSON.stringify({ type: "pair_request", target_id: scenario.target }));
    },
    paired({ peer_id, is_initiator }) {
      peer = peer_id;
      if (scenario.negotiated !== undefined) use(pc.createDataChannel("robot", { negotiated: true, id: scenario.negotiated }));
      else if (is_initiator || scenario.eager) use(pc.createDataChannel("robot"));
    },
    async offer({ sdp }) {
      ignoreOffer = !scenario.polite && (makingOffer || pc.signalingState !== "stable");
      report("offer", { ignored: ignoreOffer });
      if (ignoreOffer) return;
      await pc.setRemoteDescription({ type: "offer", sdp });
      await pc.setLocalDescription();
      send({ type: "answer", sdp: pc.localDescription.sdp });
    },
    async answer({ sdp }) {
      await pc.setRemoteDescription({ type: "answer", sdp });
      report("negotiated", { sections: sdp.match(/^m=/gm).length });
    },
    async candidate({ candidate }) {
      try {
        await pc.addIceCandidate(candidate);
      } catch (error) {
        if (!ignoreOffer) throw error;
      }
    },
    peer_disconnected() {
      pc.close();
      relay.close();
      report("ended");
    },
  };
  let turn = Promise.resolve();
  relay.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    turn = turn.then(() => on[frame.type]?.(frame)).catch(fail);
  };
  relay.onerror = () => fail("the WebSocket failed");
}
