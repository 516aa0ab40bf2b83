// A foreign client, written from the wire protocol alone; browsers and the stacks for Node run this same file.
//
// work() fetches scenes from the stage (stage.py) and reports what happens in each; play() is one scene: dial the relay,
// pair or be paired, offer or answer, open a data channel, echo what comes over it.
//
// A scene: `relay` (its URL), `target` (the ID to pair with; null: wait to be asked), and how this client behaves:
//   trickle  candidates follow the description as frames of their own; else they are all in it
//   early    with trickle: the candidates, and their end, come before the description
//   name     what a candidate says of its m-line: "both", "sdpMid" or "sdpMLineIndex"
//   end      the end of candidates: "null", "empty" (a candidate "") or "none" (it is never told)
//   bare     candidates without the prefix "candidate:"
//   media    audio and video are offered beside the data channel
// or `page`: a browser shows the README's page instead (page.mjs).
//
// A stack that is `patient` says nothing on its channel before it is asked to: Chromium 150, answering on a busy machine, now and
// then loses what a page sends as soon as the channel is open (its own count of messages sent stays 0). The others hail at once.

const DEADLINE = 40_000; // a scene that hangs is given up, and leaves nothing behind

export async function work(stack, stage) {
  for (;;) {
    const answer = await fetch(`${stage}/next`);
    if (answer.status === 410) return;
    if (answer.status !== 200) continue;
    const scene = await answer.json();
    let last = Promise.resolve(); // reports arrive in the order in which things happened
    const report = (event, more = {}) => {
      const body = JSON.stringify({ event, ...more });
      last = last.then(() => fetch(`${stage}/report/${scene.number}`, { method: "POST", body })).catch(() => {});
    };
    if (scene.page) stack.playPage(scene, report);
    else play(scene, stack, report);
  }
}

export function play(scene, { RTCPeerConnection, WebSocket, patient }, report) {
  const relay = new WebSocket(scene.relay);
  let peer = null; // the ID of the other side
  let now = null; // the present connection and all that belongs to it
  let over = false;

  const tell = (frame) => {
    if (relay.readyState === 1) relay.send(JSON.stringify(frame));
  };
  const end = () => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    now?.pc.close();
    relay.close();
    report("over");
  };
  const fail = (error) => {
    report("failed", { reason: String(error?.stack ?? error) });
    end();
  };
  const timer = setTimeout(() => fail(`not over in ${DEADLINE} ms`), DEADLINE);

  // ---- what goes out ---------------------------------------------------------------------------------------------

  function connect() {
    now?.pc.close();
    const pc = new RTCPeerConnection({ iceServers: [] });
    const made = { pc, waiting: [], held: [], ended: false, told: false };
    made.gathered = new Promise((resolve) => { made.gather = resolve; });
    const finish = () => {
      if (made.ended) return;
      made.ended = true;
      made.gather();
      if (scene.trickle) trickle(made, null);
    };
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) finish();
      else if (candidate.candidate && scene.trickle) trickle(made, candidate);
    };
    pc.onicegatheringstatechange = () => { if (pc.iceGatheringState === "complete") finish(); };
    pc.onconnectionstatechange = () => report("connection", { state: pc.connectionState });
    pc.ondatachannel = ({ channel }) => use(channel);
    now = made;
    return made;
  }

  function trickle(made, candidate) {
    if (made.told || scene.early) tellCandidate(candidate);
    else made.held.push(candidate);
  }

  function tellCandidate(candidate) {
    if (candidate === null && scene.end === "none") return;
    const init = dressed(candidate);
    report("told", { candidate: init });
    tell({ type: "candidate", candidate: init, peer_id: peer });
  }

  function dressed(candidate) {
    if (candidate === null && scene.end === "null") return null;
    const text = candidate === null ? "" : candidate.candidate;
    const init = { candidate: scene.bare ? text.replace(/^candidate:/, "") : text };
    if (scene.name !== "sdpMLineIndex") init.sdpMid = candidate?.sdpMid ?? "0";
    if (scene.name !== "sdpMid") init.sdpMLineIndex = candidate?.sdpMLineIndex ?? 0;
    return init;
  }

  async function describe(made, type) {
    const { pc } = made;
    await pc.setLocalDescription(type === "offer" ? await pc.createOffer() : await pc.createAnswer());
    if (!scene.trickle || scene.early) await made.gathered;
    const { sdp } = pc.localDescription;
    const said = scene.trickle ? sdp.replace(/a=(candidate|end-of-candidates).*\r\n/g, "") : sdp;
    report("told", { sdp: said });
    tell({ type, sdp: said, peer_id: peer });
    made.told = true;
    for (const candidate of made.held.splice(0)) tellCandidate(candidate);
  }

  // ---- what comes in ---------------------------------------------------------------------------------------------

  async function remote(made, description) {
    await made.pc.setRemoteDescription(description);
    for (const candidate of made.waiting.splice(0)) await add(made, candidate);
  }

  async function add(made, candidate) {
    report("candidate", { candidate });
    await made.pc.addIceCandidate(candidate);
  }

  const on = {
    your_id({ id }) {
      report("id", { id });
      if (scene.target) tell({ type: "pair_request", target_id: scene.target });
    },
    async paired({ peer_id, is_initiator }) {
      peer = peer_id;
      const made = connect();
      if (!is_initiator) return;
      if (scene.media) for (const kind of ["audio", "video"]) made.pc.addTransceiver(kind);
      use(made.pc.createDataChannel("robot"));
      await describe(made, "offer");
    },
    async offer({ sdp }) {
      report("offer", { sdp });
      const made = now.pc.remoteDescription ? connect() : now; // a further offer starts afresh
      await remote(made, { type: "offer", sdp });
      await describe(made, "answer");
    },
    async answer({ sdp }) {
      report("answer", { sdp });
      await remote(now, { type: "answer", sdp });
    },
    async candidate({ candidate }) {
      if (now.pc.remoteDescription) await add(now, candidate);
      else now.waiting.push(candidate);
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
    turn = turn.then(() => (over ? null : on[frame.type]?.(frame))).catch(fail);
  };
  relay.onerror = () => fail("the WebSocket failed");
  relay.onclose = ({ code }) => { if (!over) fail(`the relay closed: ${code}`); };

  // ---- the talk --------------------------------------------------------------------------------------------------

  function use(channel) {
    channel.binaryType = "arraybuffer";
    let hailed = false;
    const hail = () => {
      if (hailed) return;
      hailed = true;
      channel.send("hello from the other stack");
      channel.send(new Uint8Array([0, 1, 2, 255]));
    };
    const opened = () => {
      report("open", { label: channel.label });
      if (!patient) hail();
    };
    channel.onmessage = ({ data }) => {
      if (data === "hail") hail();
      else if (data === "close") channel.close();
      else if (data === "leave") now.pc.close();
      else if (typeof data === "string") channel.send(`echo ${data}`);
    };
    channel.onclose = () => report("closed");
    if (channel.readyState === "open") opened();
    else channel.onopen = opened;
  }
}
