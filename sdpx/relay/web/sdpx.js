// The signaling client of an sdpx relay, for any page: https://RELAY/sdpx.js
//
//   const relay = new Signaling("wss://relay.example.com", { id: "ann", token });
//   relay.on("paired", ({ peer_id, is_initiator }) => ...);   // also: offer, answer, candidate, peer_disconnected, error
//   relay.pair("bob");  relay.send({ type: "offer", sdp });
//
// A lost connection is opened again and the session resumed (protocol: session resumption): no frame is lost or doubled.
// Events: `open` ({id, ice_servers, resumed}), `ice_servers`, `lost` (the session and its pairing are gone), `state`
// ("connecting", "open", "closed"), `failed` ({code, reason}: no further attempt), and each type of frame from the relay.

const ACK_MS = 100, ACK_FRAMES = 32, FIRST_DELAY_MS = 500, LONGEST_DELAY_MS = 30000;
const FINAL_CLOSE_CODES = [1000, 4001];

export class Signaling {
  #url; #id; #token; #socket = null; #listeners = new Map(); #closed = false; #tries = 0; #timer = 0; #hide;
  #resumeToken = null; #last = 0; #sent = 0; #confirmed = 0; #unconfirmed = []; #unacked = 0; #ackTimer = 0; #ready = false;

  /** `url` is that of the relay (ws, wss, http or https); `id` requests an ID; `token` is an access token. */
  constructor(url, { id = null, token = null } = {}) {
    this.#url = new URL(String(url).replace(/^http/, "ws"));
    this.#id = id;
    this.#token = token;
    this.iceServers = null;
    this.peerId = null;
    // A browser closes the socket of a page that is left as a proxy would, and the relay would keep the session.
    this.#hide = () => this.close();
    addEventListener("pagehide", this.#hide);
    queueMicrotask(() => this.#connect());
  }

  get id() { return this.#id; }
  get isOpen() { return this.#ready; }

  /** Call `listener` with the detail of each event of this type. */
  on(type, listener) {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
    return this;
  }

  /** Request a pairing with a client. */
  pair(targetId) { this.send({ type: "pair_request", target_id: targetId }); }

  /** Leave the pairing. */
  unpair() { this.send({ type: "unpair" }); }

  /** Send a frame; it is kept until the relay has confirmed it. */
  send(frame) {
    const text = JSON.stringify({ ...frame, client_seq: ++this.#sent });
    this.#unconfirmed.push(text);
    if (this.#ready) this.#socket.send(text);
  }

  /** Resolve with the milliseconds of a round trip to the relay. */
  ping() {
    return new Promise((resolve, reject) => {
      if (!this.#ready) { reject(new Error("not connected")); return; }
      const began = performance.now(), timer = setTimeout(() => reject(new Error("no pong")), 10000);
      this.#pong = () => { clearTimeout(timer); resolve(performance.now() - began); };
      this.#socket.send(JSON.stringify({ type: "ping" }));
    });
  }
  #pong = () => {};

  /** End the session. */
  close() {
    this.#closed = true;
    this.#ready = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#ackTimer);
    removeEventListener("pagehide", this.#hide);
    this.#socket?.close(1000);
    this.#emit("state", "closed");
  }

  #emit(type, detail) {
    for (const listener of this.#listeners.get(type) ?? []) listener(detail);
  }

  #connect() {
    if (this.#closed) return;
    this.#emit("state", "connecting");
    const url = new URL(this.#url);
    url.searchParams.set("seq", "1");
    if (this.#id) url.searchParams.set("id", this.#id);
    if (this.#resumeToken) {
      url.searchParams.set("resume", this.#resumeToken);
      url.searchParams.set("last", this.#last);
    }
    // A browser can set no header, and a URL is logged on its way: the token is a subprotocol.
    const socket = new WebSocket(url, ["sdpx.v1", ...(this.#token ? [`sdpx.token.${this.#token}`] : [])]);
    this.#socket = socket;
    socket.onmessage = ({ data }) => { if (socket === this.#socket) this.#receive(JSON.parse(data)); };
    socket.onclose = ({ code, reason }) => { if (socket === this.#socket) this.#onClose(code, reason); };
  }

  #onClose(code, reason) {
    this.#ready = false;
    if (this.#closed) return;
    if (FINAL_CLOSE_CODES.includes(code)) {
      this.#closed = true;
      this.#emit("state", "closed");
      this.#emit("failed", { code, reason });
      return;
    }
    const immediate = this.#tries++ === 0 && this.#resumeToken;
    const delay = immediate ? 0 : Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(this.#tries, 10)) * (0.5 + Math.random() / 2);
    this.#emit("state", "connecting");
    this.#emit("retry", { delay, tries: this.#tries, code, reason });
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #receive(frame) {
    if (frame.type === "your_id") { this.#onId(frame); return; }
    if (frame.type === "ack") { this.#confirm(frame.client_seq); return; }
    if (frame.type === "pong") { this.#pong(); return; }
    if (frame.seq !== undefined && !this.#count(frame.seq)) return;
    if (frame.type === "paired") this.peerId = frame.peer_id;
    if (frame.type === "peer_disconnected" || frame.type === "unpaired") this.peerId = null;
    if (frame.type === "ice_servers") this.iceServers = frame.ice_servers;
    this.#emit(frame.type, frame);
  }

  #onId({ id, ice_servers, resume_token, resumed, client_seq }) {
    const hadSession = this.#resumeToken !== null;
    this.#tries = 0;
    this.#id = id;
    this.#resumeToken = resume_token ?? null;
    if (ice_servers) this.iceServers = ice_servers;
    this.#ready = true;
    if (resumed) {
      this.#confirm(client_seq);
      if (this.#last) this.#ack();
    } else if (hadSession) {
      this.#last = this.#sent = this.#confirmed = 0;
      this.#unconfirmed = [];
      this.peerId = null;
      this.#emit("lost", {});
    }
    for (const text of this.#unconfirmed) this.#socket.send(text);
    this.#emit("state", "open");
    this.#emit("open", { id, ice_servers: this.iceServers, resumed: Boolean(resumed) });
  }

  #confirm(clientSeq) {
    while (this.#confirmed < clientSeq && this.#unconfirmed.length) {
      this.#unconfirmed.shift();
      this.#confirmed++;
    }
  }

  /** Count a numbered frame; false for one that has been received before, or behind a gap. */
  #count(seq) {
    if (seq > this.#last + 1) { this.#socket.close(4000); return false; }
    if (++this.#unacked >= ACK_FRAMES) this.#ack();
    else this.#ackTimer ||= setTimeout(() => this.#ack(), ACK_MS);
    if (seq <= this.#last) return false;
    this.#last = seq;
    return true;
  }

  #ack() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = this.#unacked = 0;
    if (this.#ready) this.#socket.send(JSON.stringify({ type: "ack", seq: this.#last }));
  }
}
