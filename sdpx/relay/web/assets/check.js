// The checks of `sdpx doctor`, from the browser's side: relay, each ICE server alone, a connection to itself by TURN only.

import { $, element, milliseconds, remedies, rows, shortenAddresses } from "./page.js";

const PINGS = 20, GATHER_MS = 8000, CONNECT_MS = 15000;
// Codes of icecandidateerror (W3C WebRTC, 4.8.1.3; RFC 8489, 14.8; RFC 8656, 15).
const ERRORS = {
  300: "try another server", 400: "bad request", 401: "wrong user name or password, or expired credentials", 403: "forbidden",
  437: "allocation mismatch", 438: "stale nonce", 441: "wrong credentials", 442: "unsupported transport", 486: "allocation quota reached",
  500: "server error", 508: "no port left", 600: "the server does not answer", 701: "the server cannot be reached",
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Gather candidates with one server; returns them with their times, the errors, and whether gathering ended in time. */
async function gather(server, policy = "all") {
  const pc = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: policy });
  const began = performance.now(), candidates = [], errors = [];
  let isComplete = false;
  try {
    const done = new Promise((resolve) => {
      pc.onicecandidate = ({ candidate }) => {
        if (!candidate) resolve();
        else if (candidate.candidate) candidates.push({ type: candidate.type ?? / typ (\S+)/.exec(candidate.candidate)?.[1], address: candidate.address, ms: performance.now() - began });
      };
    });
    pc.onicecandidateerror = ({ errorCode, errorText }) => { errors.push({ code: errorCode, text: ERRORS[errorCode] ?? errorText }); };
    pc.createDataChannel("check");
    await pc.setLocalDescription();
    isComplete = await Promise.race([done.then(() => true), pause(GATHER_MS).then(() => false)]);
  } finally {
    pc.close();
  }
  return { candidates, errors, isComplete };
}

/** Connect two RTCPeerConnections of this page; returns the milliseconds until the channel was open. */
async function connectToSelf(iceServers, iceTransportPolicy) {
  const a = new RTCPeerConnection({ iceServers, iceTransportPolicy }), b = new RTCPeerConnection({ iceServers, iceTransportPolicy });
  const began = performance.now();
  try {
    const waiting = { a: [], b: [] };
    const pass = (from, to, name) => {
      from.onicecandidate = ({ candidate }) => {
        if (!candidate) return;
        if (to.remoteDescription) to.addIceCandidate(candidate);
        else waiting[name].push(candidate);
      };
    };
    pass(a, b, "b");
    pass(b, a, "a");
    const channel = a.createDataChannel("check");
    const opened = new Promise((resolve) => { channel.onopen = () => resolve(true); });
    await a.setLocalDescription();
    await b.setRemoteDescription(a.localDescription);
    for (const candidate of waiting.b) await b.addIceCandidate(candidate);
    await b.setLocalDescription();
    await a.setRemoteDescription(b.localDescription);
    for (const candidate of waiting.a) await a.addIceCandidate(candidate);
    const isOpen = await Promise.race([opened, pause(CONNECT_MS).then(() => false)]);
    return isOpen ? performance.now() - began : null;
  } finally {
    a.close();
    b.close();
  }
}

const flat = (servers) => servers.flatMap((server) => [server.urls].flat().map((urls) => ({ ...server, urls })));

export class CheckView {
  #results = [];

  constructor(relay, peer) {
    this.relay = relay;
    this.peer = peer;
    $("run-check").onclick = () => this.run();
  }

  get report() {
    const head = { report: "sdpx page", url: location.origin + location.pathname, agent: navigator.userAgent, summary: $("check-summary").textContent };
    return [head, ...this.#results].map((each) => shortenAddresses(JSON.stringify(each))).join("\n") + "\n";
  }

  async #add(name, target, result, sentence, extra = {}) {
    const remedy = extra.code ? (await remedies)[extra.code] ?? "" : "";
    this.#results.push({ name, target, result, sentence, ...extra, remedy });
    rows($("checks"), this.#results.map((each) => [
      element("span", each.result, each.result), `${each.name} ${each.target}`,
      each.sentence + (each.remedy ? ` - ${each.remedy}` : ""), milliseconds(each.ms),
    ]));
  }

  async run() {
    $("run-check").disabled = true;
    $("check-summary").textContent = "running";
    this.#results = [];
    try {
      await this.#browser();
      await this.#signaling();
      await this.#servers();
    } finally {
      $("run-check").disabled = $("copy-report").disabled = false;
    }
    const first = this.#results.find(({ result }) => result === "failed") ?? this.#results.find(({ result }) => result === "warning");
    $("check-summary").textContent = first ? `First: ${first.name} ${first.target}: ${first.remedy || first.sentence}` : "No problem found";
  }

  async #browser() {
    if (!window.RTCPeerConnection) { await this.#add("browser", "", "failed", "It has no RTCPeerConnection: WebRTC is turned off"); return; }
    await this.#add("browser", "", "ok", `${navigator.userAgent.slice(0, 120)}; ${navigator.onLine ? "online" : "offline"}`);
  }

  async #signaling() {
    const times = [];
    try {
      for (let count = 0; count < PINGS; count++) times.push(await this.relay.ping());
    } catch (error) {
      await this.#add("relay", location.host, "failed", `No round trip: ${error.message}`, { code: "no_connection" });
      return;
    }
    times.sort((x, y) => x - y);
    await this.#add("relay", location.host, "ok", `${milliseconds(times[0])} min, ${milliseconds(times[PINGS >> 1])} median, ${milliseconds(times.at(-1))} max of ${PINGS} pings`, { ms: times[PINGS >> 1] });
  }

  async #servers() {
    const servers = flat(this.peer.iceServers), turn = servers.filter(({ urls }) => urls.startsWith("turn"));
    let hasHost = false, isHidden = false;
    for (const server of servers) {
      const isTurn = server.urls.startsWith("turn"), wanted = isTurn ? "relay" : "srflx";
      const { candidates, errors, isComplete } = await gather(server, isTurn ? "relay" : "all");
      const found = candidates.find(({ type }) => type === wanted);
      hasHost ||= candidates.some(({ type }) => type === "host");
      isHidden ||= candidates.some(({ type, address }) => type === "host" && address?.endsWith(".local"));
      const words = [...new Set(errors.map(({ code, text }) => `${code} ${text}`))].join("; ");
      if (found) {
        await this.#add(isTurn ? "turn" : "stun", server.urls, "ok", `${wanted} candidate ${found.address ?? ""}`, { ms: found.ms });
      } else if (isTurn) {
        const refused = errors.some(({ code }) => code >= 400 && code < 600);
        await this.#add("turn", server.urls, "failed", words || "It does not answer", { code: refused ? "turn_refused" : "turn_unreachable" });
      } else if (isComplete && !errors.length && candidates.some(({ type, address }) => type === "host" && !address?.endsWith(".local"))) {
        await this.#add("stun", server.urls, "ok", "It sees an address of this machine: there is no NAT");
      } else {
        await this.#add("stun", server.urls, "warning", words || "It does not answer", { code: "stun_silent" });
      }
    }
    if (!hasHost && !turn.length) await this.#add("addresses", "", "failed", "This browser offers no address", { code: "no_network" });
    else if (isHidden) await this.#add("addresses", "", "ok", "The browser hides its addresses behind mDNS names (.local)");
    const direct = await connectToSelf(servers, "all");
    if (direct === null) await this.#add("connection to itself", "", "failed", "No path", { code: "ice_failed" });
    else await this.#add("connection to itself", "", "ok", "Connected", { ms: direct });
    if (!turn.length) { await this.#add("connection by TURN", "", "skipped", "There is no TURN server"); return; }
    const relayed = await connectToSelf(turn, "relay");
    if (relayed === null) await this.#add("connection by TURN", "", "failed", "No path through a TURN server", { code: "turn_no_data" });
    else await this.#add("connection by TURN", "", "ok", "Connected", { ms: relayed });
  }
}
