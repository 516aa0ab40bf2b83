// One RTCPeerConnection with the paired peer: channels, messages, files, and the facts for a diagnosis.

const FILE_LABEL = "sdpx-page-file", AGENT = "sdpx-page", HIGH_WATER = 1 << 20, CHUNK = 1 << 16;
const DEFAULT_ICE_SERVERS = [{ urls: "stun:stun.l.google.com:19302" }];

const sessionOf = (sdp) => /^o=\S+ (\S+)/m.exec(sdp)?.[1];

export class Peer extends EventTarget {
  constructor(relay) {
    super();
    this.relay = relay;
    this.pc = null;
    this.channel = null;
    this.timeline = [];
    this.iceErrors = [];
    this.isPage = false;
    relay.on("paired", (frame) => this.#onPaired(frame));
    relay.on("offer", (frame) => this.#later(() => this.#onOffer(frame)));
    relay.on("answer", (frame) => this.#later(() => this.#onAnswer(frame)));
    relay.on("candidate", ({ candidate }) => this.#later(() => this.#onCandidate(candidate)));
    relay.on("peer_disconnected", ({ reason }) => this.#onLeft(reason));
    relay.on("unpaired", () => this.#onLeft("left"));
    relay.on("lost", () => this.#onLeft("relay"));
  }
  #queue = Promise.resolve();
  #waiting = [];
  #remoteSession = null;
  #files = new Map();

  /** The servers of the relay, or a public STUN server. */
  get iceServers() { return this.relay.iceServers ?? DEFAULT_ICE_SERVERS; }

  #emit(type, detail = {}) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #later(step) {
    this.#queue = this.#queue.then(step).catch((error) => {
      this.failure = "bad_description";
      this.#emit("problem", { text: String(error) });
    });
  }

  #mark(phase) {
    this.timeline.push({ phase, ms: performance.now() - this.began });
    this.#emit("timeline");
  }

  #open() {
    this.pc?.close();
    this.channel = null;
    this.#waiting = [];
    this.#remoteSession = null;
    this.iceErrors = [];
    const pc = new RTCPeerConnection({ iceServers: this.iceServers });
    this.pc = pc;
    pc.onicecandidate = ({ candidate }) => {
      if (pc === this.pc) this.relay.send({ type: "candidate", candidate: candidate?.toJSON() ?? { candidate: "" }, peer_id: this.peerId });
    };
    pc.onicecandidateerror = ({ errorCode, errorText, url }) => { this.iceErrors.push({ errorCode, errorText, url }); };
    pc.oniceconnectionstatechange = () => { if (pc === this.pc) this.#mark(`ICE ${pc.iceConnectionState}`); };
    pc.onconnectionstatechange = () => {
      if (pc !== this.pc) return;
      this.#mark(pc.connectionState);
      if (pc.connectionState === "failed") this.#emit("failed");
      this.#emit("state");
    };
    pc.ondatachannel = ({ channel }) => this.#use(channel);
  }

  #use(channel) {
    channel.binaryType = "arraybuffer";
    if (channel.label.startsWith(FILE_LABEL)) { this.#receiveFile(channel); return; }
    this.channel ??= channel;
    channel.onopen = () => { this.#mark("channel open"); this.#emit("open"); };
    if (channel.readyState === "open") channel.onopen();
    channel.onclose = () => { if (channel === this.channel) { this.channel = null; this.#emit("state"); } };
    channel.onmessage = ({ data }) => this.#emit("message", { data });
  }

  #onPaired({ peer_id, is_initiator }) {
    this.peerId = peer_id;
    this.isInitiator = is_initiator;
    this.began = performance.now();
    this.timeline = [];
    this.failure = null;
    this.isPage = false;
    this.#emit("paired");
    this.#mark("paired");
    this.#later(async () => {
      this.#open();
      if (!is_initiator) return;
      this.#use(this.pc.createDataChannel("chat"));
      await this.pc.setLocalDescription();
      this.#describe("offer");
    });
  }

  #describe(type) {
    this.relay.send({ type, sdp: this.pc.localDescription.sdp, peer_id: this.peerId, agent: AGENT });
    this.#mark(`${type} sent`);
  }

  async #onOffer({ sdp, agent }) {
    if (!this.pc || (this.#remoteSession && sessionOf(sdp) !== this.#remoteSession)) this.#open();
    await this.#setRemote({ type: "offer", sdp }, agent);
    await this.pc.setLocalDescription();
    this.#describe("answer");
  }

  async #onAnswer({ sdp, agent }) {
    await this.#setRemote({ type: "answer", sdp }, agent);
  }

  async #setRemote(description, agent) {
    this.isPage = agent === AGENT;
    await this.pc.setRemoteDescription(description);
    this.#remoteSession = sessionOf(description.sdp);
    this.#mark(`${description.type} received`);
    for (const candidate of this.#waiting.splice(0)) await this.pc.addIceCandidate(candidate);
  }

  async #onCandidate(candidate) {
    if (!this.pc || !candidate) return;
    if (this.pc.remoteDescription) await this.pc.addIceCandidate(candidate);
    else this.#waiting.push(candidate);
  }

  #onLeft(reason) {
    const wasOpen = this.timeline.some(({ phase }) => phase === "channel open");
    if (!wasOpen && this.peerId) this.failure ??= "pairing_lost";
    this.pc?.close();
    this.pc = this.channel = this.peerId = null;
    this.#emit("left", { reason });
  }

  // ---- files, between two pages

  /** Send a file on a channel of its own; `onProgress` is called with the part that was sent. */
  async sendFile(file, onProgress) {
    const channel = this.pc.createDataChannel(`${FILE_LABEL}-${Date.now()}`);
    channel.bufferedAmountLowThreshold = HIGH_WATER / 4;
    const opened = new Promise((resolve, reject) => { channel.onopen = resolve; channel.onclose = () => reject(new Error("the channel was closed")); });
    await opened;
    channel.send(JSON.stringify({ name: file.name, size: file.size, type: file.type }));
    const confirmed = new Promise((resolve, reject) => { channel.onmessage = resolve; channel.onclose = () => reject(new Error("the channel was closed")); });
    for (let at = 0; at < file.size; at += CHUNK) {
      if (channel.bufferedAmount > HIGH_WATER) {
        await Promise.race([new Promise((resolve) => { channel.onbufferedamountlow = resolve; }), confirmed]);
      }
      channel.send(await file.slice(at, at + CHUNK).arrayBuffer());
      onProgress(Math.min(at + CHUNK, file.size) / file.size);
    }
    await confirmed;
    channel.close();
  }

  #receiveFile(channel) {
    let head = null, received = 0;
    const parts = [];
    const finish = () => {
      channel.send(JSON.stringify({ received }));
      this.#emit("file", { name: String(head.name), blob: new Blob(parts) });
    };
    channel.onmessage = ({ data }) => {
      if (typeof data === "string") {
        head = JSON.parse(data);
        if (head.size === 0) finish();
        return;
      }
      parts.push(data);
      received += data.byteLength;
      this.#emit("progress", { part: received / head.size });
      if (received === head.size) finish();
    };
  }
}
