// One RTCPeerConnection with the paired peer: channels, messages, files, and the facts for a diagnosis.
//
// To `sdpx peer` this page is another one: it sends heartbeats with the number of messages that it has received.

import { Transfer } from "./files.js";

const AGENT = "sdpx/page (files)", FILES = "files", HEARTBEAT = "sdpx.heartbeat", HEARTBEAT_ID = 1000, HEARTBEAT_MS = 1000;
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
    this.transfer = null;
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
  #heartbeat = null;
  #beat = 0;
  #messages = 0;

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
    this.#stopHeartbeat();
    this.channel = this.transfer = null;
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
    if (channel.label === FILES) { this.#useForFiles(channel); return; }
    this.channel ??= channel;
    channel.onopen = () => { this.#mark("channel open"); this.#emit("open"); };
    if (channel.readyState === "open") channel.onopen();
    channel.onclose = () => { if (channel === this.channel) { this.channel = null; this.#emit("state"); } };
    channel.onmessage = ({ data }) => {
      this.#messages++;
      this.#sendHeartbeat();
      this.#emit("message", { data });
    };
  }

  #sendHeartbeat() {
    if (this.#heartbeat?.readyState !== "open") return;
    this.#heartbeat.send(JSON.stringify({ received: this.#messages, written: this.#messages }));
  }

  /** Use what the other side says of itself. */
  #onAgent(agent) {
    this.modes = /^sdpx\/\S+ \(([a-z, ]+)\)/.exec(agent ?? "")?.[1].split(", ") ?? [];
    this.isPage = agent === AGENT;
    if (!agent?.startsWith("sdpx/") || this.#heartbeat) return;
    this.#heartbeat = this.pc.createDataChannel(HEARTBEAT, { negotiated: true, id: HEARTBEAT_ID });
    this.#beat = setInterval(() => this.#sendHeartbeat(), HEARTBEAT_MS);
    if (this.isInitiator && this.modes.includes(FILES) && !this.isPage) this.#useForFiles(this.pc.createDataChannel(FILES));
  }

  #stopHeartbeat() {
    clearInterval(this.#beat);
    this.#heartbeat = null;
  }

  #onPaired({ peer_id, is_initiator }) {
    this.peerId = peer_id;
    this.isInitiator = is_initiator;
    this.began = performance.now();
    this.timeline = [];
    this.failure = null;
    this.#messages = 0;
    this.modes = [];
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
    this.#onAgent(agent);
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
    this.#stopHeartbeat();
    this.pc = this.channel = this.peerId = this.transfer = null;
    this.#emit("left", { reason });
  }

  // ---- files

  get canSendFiles() { return Boolean(this.pc) && (this.modes ?? []).includes(FILES) && (this.channel?.readyState === "open" || this.transfer !== null); }

  /** Send files on the channel that is there for them, or on a new one to another page. */
  async sendFiles(files) {
    if (!this.transfer || this.transfer.isOver) this.#useForFiles(this.pc.createDataChannel(FILES));
    await this.transfer.send(files);
  }

  #useForFiles(channel) {
    const transfer = new Transfer(channel);
    this.transfer = transfer;
    for (const type of ["offer", "progress", "file", "finished", "failed"]) {
      transfer.addEventListener(type, ({ detail }) => this.#emit(type === "failed" ? "filesfailed" : type, detail));
    }
    channel.addEventListener("open", () => this.#emit("state"));
  }
}
