// One RTCPeerConnection with the paired peer: channels, messages, files, and the facts for a diagnosis.
//
// To `sdpx peer` this page is another one: it sends heartbeats with the number of messages that it has received.

import { Transfer } from "./files.js";
import { parseCandidate } from "./page.js";

const AGENT = "sdpx/page (files)", FILES = "files", HEARTBEAT = "sdpx.heartbeat", HEARTBEAT_ID = 1000, HEARTBEAT_MS = 1000;
const CHECKS_MS = 5000;  // the least time of connectivity checks after which a departure is a failure of ICE
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
    this.local = [];
    this.remote = [];
    this.transfer = null;
    this.timeout = 30000;  // ms from the pairing to an open channel, as for `sdpx peer`
    relay.on("paired", (frame) => this.#onPaired(frame));
    relay.on("offer", (frame) => this.#enqueue(() => this.#onOffer(frame)));
    relay.on("answer", (frame) => this.#enqueue(() => this.#onAnswer(frame)));
    relay.on("candidate", ({ candidate }) => this.#enqueue(() => this.#onCandidate(candidate)));
    relay.on("peer_disconnected", ({ reason }) => { this.#onDeparture(); this.#onLeft(reason); });
    relay.on("unpaired", () => this.#onLeft("left"));
    relay.on("lost", () => this.#onLeft("relay"));
  }
  #queue = Promise.resolve();
  #waiting = [];
  #remoteSession = null;
  #heartbeat = null;
  #beat = 0;
  #timer = 0;
  #messages = 0;

  /** The servers of the relay, or a public STUN server. */
  get iceServers() { return this.relay.iceServers ?? DEFAULT_ICE_SERVERS; }

  #emit(type, detail = {}) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #enqueue(step) {
    this.#queue = this.#queue.then(step).catch((error) => { if (this.pc) this.#fail("bad_description", String(error)); });
  }

  #fail(code = null, detail = "") {
    this.failure = code;
    clearTimeout(this.#timer);
    this.#emit("failed", { detail });
  }

  get hasExchanged() { return this.timeline.some(({ phase }) => phase === "answer received" || phase === "answer sent"); }
  get hasOpened() { return this.timeline.some(({ phase }) => phase === "channel open"); }

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
    this.local = [];
    this.remote = [];
    const pc = new RTCPeerConnection({ iceServers: this.iceServers });
    this.pc = pc;
    pc.onicecandidate = ({ candidate }) => {
      if (pc !== this.pc) return;
      if (candidate?.candidate) this.local.push(parseCandidate(candidate.candidate));
      this.relay.send({ type: "candidate", candidate: candidate?.toJSON() ?? { candidate: "" }, peer_id: this.peerId });
    };
    pc.onicecandidateerror = ({ errorCode, errorText, url }) => { this.iceErrors.push({ errorCode, errorText, url }); };
    pc.oniceconnectionstatechange = () => { if (pc === this.pc) this.#mark(`ICE ${pc.iceConnectionState}`); };
    pc.onconnectionstatechange = () => {
      if (pc !== this.pc) return;
      this.#mark(pc.connectionState);
      if (pc.connectionState === "failed") this.#fail();
      this.#emit("state");
    };
    pc.ondatachannel = ({ channel }) => this.#use(channel);
  }

  #use(channel) {
    channel.binaryType = "arraybuffer";
    if (channel.label === FILES) { this.#useForFiles(channel); return; }
    this.channel ??= channel;
    channel.onopen = () => { this.#onOpen(); this.#emit("open"); };
    if (channel.readyState === "open") channel.onopen();
    channel.onclose = () => { if (channel === this.channel) { this.channel = null; this.#emit("state"); } };
    channel.onmessage = ({ data }) => {
      this.#messages++;
      this.#sendHeartbeat();
      this.#emit("message", { data });
    };
  }

  #onOpen() {
    clearTimeout(this.#timer);
    if (!this.hasOpened) this.#mark("channel open");
  }

  #sendHeartbeat() {
    if (this.#heartbeat?.readyState !== "open") return;
    this.#heartbeat.send(JSON.stringify({ received: this.#messages, written: this.#messages }));
  }

  /** Use the `agent` of the peer's description: an sdpx has heartbeats, and modes. */
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
    this.peerId = this.name = peer_id;
    this.isInitiator = is_initiator;
    this.began = performance.now();
    this.timeline = [];
    this.failure = undefined;  // null: to be found out, see diagnose
    this.#messages = 0;
    this.modes = [];
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(), this.timeout);
    this.#emit("paired");
    this.#mark("paired");
    this.#enqueue(async () => {
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
    this.remote.push(...description.sdp.split(/\r?\n/).filter((line) => line.startsWith("a=candidate:")).map(parseCandidate));
    this.#mark(`${description.type} received`);
    for (const candidate of this.#waiting.splice(0)) await this.#add(candidate);
  }

  async #onCandidate(candidate) {
    if (!this.pc || !candidate) return;
    if (this.pc.remoteDescription) await this.#add(candidate);
    else this.#waiting.push(candidate);
  }

  /** Use a candidate; one that this browser does not take (RFC 8839 allows others) is no reason to end the negotiation. */
  async #add(candidate) {
    if (candidate.candidate) this.remote.push(parseCandidate(candidate.candidate));
    await this.pc.addIceCandidate(candidate).catch(() => {});
  }

  /** The peer left. If the connection was not open by then, it has failed: the checks found no path, or had not begun. */
  #onDeparture() {
    if (this.hasOpened || !this.peerId || this.failure !== undefined) return;
    this.#fail(this.hasExchanged && performance.now() - this.began > CHECKS_MS ? null : "pairing_lost");
  }

  #onLeft(reason) {
    clearTimeout(this.#timer);
    this.pc?.close();
    this.#stopHeartbeat();
    this.pc = this.channel = this.peerId = this.transfer = null;
    this.#emit("left", { reason });
  }

  // ---- files

  get takesFiles() { return (this.modes ?? []).includes(FILES); }

  get canSendFiles() { return Boolean(this.pc) && this.takesFiles && (this.channel?.readyState === "open" || this.transfer !== null); }

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
    const onOpen = () => { this.#onOpen(); this.#emit("state"); };
    if (channel.readyState === "open") onOpen();
    else channel.addEventListener("open", onOpen);
  }
}
