// A client in JavaScript, written from the wire protocol alone, for browsers and for the stacks for Node.
//
// run() fetches scenes from the control server (control.py) and reports their events; runScenario() is one scenario: connect to the
// relay, pair or be paired, offer or answer, open a data channel, echo its messages.
//
// A scenario has `relay` (its URL), `target` (the ID to pair with; null: wait for a pairing), and how this client signals:
//   trickle    candidates follow the description as frames of their own; otherwise the description has them all
//   early      with trickle: the candidates, and their end, come before the description
//   name       how a candidate names its m-line: "both", "sdpMid" or "sdpMLineIndex"
//   end        the end of candidates: "null", "empty" (a candidate "") or "none" (it is not sent)
//   no_prefix  candidates have no prefix "candidate:"
//   media      audio and video are offered beside the data channel
// or `page`: a browser shows a page without a library instead (page.mjs); or `perfect`: the page of perfect.mjs.
//
// With `greetsOnRequest` a client sends its first messages on request only: Chromium 150, answering on a busy machine, sometimes loses
// messages that a page sends as soon as the channel is open (its own count of messages sent stays 0). The others send at once.

const DEADLINE = 40_000; // a scenario that hangs is ended

export async function run(stack, controlUrl) {
  for (;;) {
    const answer = await fetch(`${controlUrl}/next`);
    if (answer.status === 410) return;
    if (answer.status !== 200) continue;
    const scenario = await answer.json();
    let last = Promise.resolve(); // reports arrive in order
    const report = (event, more = {}) => {
      const body = JSON.stringify({ event, ...more });
      last = last.then(() => fetch(`${controlUrl}/report/${scenario.number}`, { method: "POST", body })).catch(() => {});
    };
    if (scenario.page) stack.runPage(scenario, report);
    else if (scenario.perfect) stack.runPerfect(scenario, stack, report);
    else runScenario(scenario, stack, report);
  }
}

export function runScenario(scenario, { RTCPeerConnection, WebSocket, greetsOnRequest }, report) {
  const relay = new WebSocket(scenario.relay);
  let peer = null; // the ID of the other side
  let current = null; // the present connection and its state
  let ended = false;

  const send = (frame) => {
    if (relay.readyState === 1) relay.send(JSON.stringify(frame));
  };
  const end = () => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    current?.pc.close();
    relay.close();
    report("ended");
  };
  const fail = (error) => {
    report("failed", { reason: String(error?.stack ?? error) });
    end();
  };
  const timer = setTimeout(() => fail(`not ended in ${DEADLINE} ms`), DEADLINE);

  // ---- out -------------------------------------------------------------------------------------------------------

  function connect() {
    current?.pc.close();
    const pc = new RTCPeerConnection({ iceServers: [] });
    const connection = { pc, early: [], pending: [], ended: false, sent: false };
    connection.gathered = new Promise((resolve) => { connection.resolveGathered = resolve; });
    const finish = () => {
      if (connection.ended) return;
      connection.ended = true;
      connection.resolveGathered();
      if (scenario.trickle) trickle(connection, null);
    };
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) finish();
      else if (candidate.candidate && scenario.trickle) trickle(connection, candidate);
    };
    pc.onicegatheringstatechange = () => { if (pc.iceGatheringState === "complete") finish(); };
    pc.onconnectionstatechange = () => report("connection", { state: pc.connectionState });
    pc.ondatachannel = ({ channel }) => useChannel(channel);
    current = connection;
    return connection;
  }

  function trickle(connection, candidate) {
    if (connection.sent || scenario.early) sendCandidate(candidate);
    else connection.pending.push(candidate);
  }

  function sendCandidate(candidate) {
    if (candidate === null && scenario.end === "none") return;
    const init = candidateInit(candidate);
    report("sent", { candidate: init });
    send({ type: "candidate", candidate: init, peer_id: peer });
  }

  function candidateInit(candidate) {
    if (candidate === null && scenario.end === "null") return null;
    const text = candidate === null ? "" : candidate.candidate;
    const init = { candidate: scenario.no_prefix ? text.replace(/^candidate:/, "") : text };
    if (scenario.name !== "sdpMLineIndex") init.sdpMid = candidate?.sdpMid ?? "0";
    if (scenario.name !== "sdpMid") init.sdpMLineIndex = candidate?.sdpMLineIndex ?? 0;
    return init;
  }

  async function describe(connection, type) {
    const { pc } = connection;
    await pc.setLocalDescription(type === "offer" ? await pc.createOffer() : await pc.createAnswer());
    if (!scenario.trickle || scenario.early) await connection.gathered;
    const { sdp } = pc.localDescription;
    const said = scenario.trickle ? sdp.replace(/a=(candidate|end-of-candidates).*\r\n/g, "") : sdp;
    report("sent", { sdp: said });
    send({ type, sdp: said, peer_id: peer });
    connection.sent = true;
    for (const candidate of connection.pending.splice(0)) sendCandidate(candidate);
  }

  // ---- in --------------------------------------------------------------------------------------------------------

  async function setRemote(connection, description) {
    await connection.pc.setRemoteDescription(description);
    for (const candidate of connection.early.splice(0)) await addCandidate(connection, candidate);
  }

  async function addCandidate(connection, candidate) {
    report("candidate", { candidate, end: !candidate?.candidate });
    await connection.pc.addIceCandidate(candidate);
  }

  const on = {
    your_id({ id }) {
      report("id", { id });
      if (scenario.target) send({ type: "pair_request", target_id: scenario.target });
    },
    async paired({ peer_id, is_initiator }) {
      peer = peer_id;
      const connection = connect();
      if (!is_initiator) return;
      if (scenario.media) for (const kind of ["audio", "video"]) connection.pc.addTransceiver(kind);
      useChannel(connection.pc.createDataChannel("robot"));
      await describe(connection, "offer");
    },
    async offer({ sdp }) {
      report("offer", { sdp });
      const connection = current.pc.remoteDescription ? connect() : current; // a further offer is for a new connection
      await setRemote(connection, { type: "offer", sdp });
      await describe(connection, "answer");
    },
    async answer({ sdp }) {
      report("answer", { sdp });
      await setRemote(current, { type: "answer", sdp });
    },
    async candidate({ candidate }) {
      if (current.pc.remoteDescription) await addCandidate(current, candidate);
      else current.early.push(candidate);
    },
    error(frame) {
      fail(JSON.stringify(frame));
    },
    peer_disconnected({ reason }) {
      report("peer_disconnected", { reason });
      end();
    },
  };

  let turn = Promise.resolve(); // one frame after the other
  relay.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    turn = turn.then(() => (ended ? null : on[frame.type]?.(frame))).catch(fail);
  };
  relay.onerror = () => fail("the WebSocket failed");
  relay.onclose = ({ code }) => { if (!ended) fail(`the relay closed: ${code}`); };

  // ---- messages --------------------------------------------------------------------------------------------------

  function useChannel(channel) {
    channel.binaryType = "arraybuffer";
    let greeted = false;
    const greet = () => {
      if (greeted) return;
      greeted = true;
      channel.send("hello from the other stack");
      channel.send(new Uint8Array([0, 1, 2, 255]));
    };
    const opened = () => {
      report("open", { label: channel.label });
      if (!greetsOnRequest) greet();
    };
    channel.onmessage = ({ data }) => {
      if (data === "greet") greet();
      else if (data === "close") channel.close();
      else if (data === "disconnect") current.pc.close();
      else if (typeof data === "string") channel.send(`echo ${data}`);
    };
    channel.onclose = () => report("closed");
    if (channel.readyState === "open") opened();
    else channel.onopen = opened;
  }
}
