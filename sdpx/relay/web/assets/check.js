// The checks of `sdpx doctor`, from the browser's side: relay, each ICE server alone, a connection to itself by TURN only.

import { $, element, milliseconds, parseCandidate, remedies, rows, shortenAddresses } from "./page.js";

const PINGS = 20, GATHER_MS = 8000, CONNECT_MS = 15000;
// Codes of icecandidateerror (W3C WebRTC, 4.8.1.3; RFC 8489, 14.8; RFC 8656, 15).
const ERRORS = {
  300: "try another server", 400: "bad request", 401: "wrong user name or password, or expired credentials", 403: "forbidden",
  437: "allocation mismatch", 438: "stale nonce", 441: "wrong credentials", 442: "unsupported transport", 486: "allocation quota reached",
  500: "server error", 508: "no port left", 600: "the server does not answer", 701: "the server cannot be reached",
};

const PRIVATE = /^(?:10|127|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01])|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\./;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Gather candidates with one server; returns them with their times, the errors, and whether gathering ended in time. */
async function gather(server, policy = "all") {
  const pc = new RTCPeerConnection({ iceServers: server ? [server] : [], iceTransportPolicy: policy });
  const began = performance.now(), candidates = [], errors = [];
  let isComplete = false;
  try {
    const done = new Promise((resolve) => {
      pc.onicecandidate = ({ candidate }) => {
        if (!candidate) resolve();
        else if (candidate.candidate) candidates.push({ ...parseCandidate(candidate.candidate), ms: performance.now() - began });
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

/** Return the result for a STUN server that gave no candidate; not all browsers report errors. */
function stunResult({ candidates, errors, isComplete }) {
  const hosts = candidates.filter(({ type, address }) => type === "host" && !address.endsWith(".local"));
  if (errors.length || !isComplete) return ["warning", errorText(errors) || "It does not answer", { code: "stun_silent" }];
  if (hosts.some(({ address }) => /^[0-9.]+$/.test(address) && !PRIVATE.test(address))) return ["ok", "It sees an address of this machine: there is no NAT"];
  return ["skipped", "This browser does not report whether it answered: there is no NAT on the way to it, or no answer; sdpx doctor shows which"];
}

/** Return the result for a TURN server that gave no candidate. */
function turnResult({ errors, isComplete }, { username }) {
  const left = /^\d{10,}(?=:|$)/.test(username) ? parseInt(username, 10) - Date.now() / 1000 : 1;
  if (left <= 0) return ["failed", `The credentials expired ${Math.round(-left)} s ago`, { code: "turn_refused" }];
  if (errors.some(({ code }) => code >= 400 && code < 600)) return ["failed", errorText(errors), { code: "turn_refused" }];
  if (errors.length || !isComplete) return ["failed", errorText(errors) || "It does not answer", { code: "turn_unreachable" }];
  return ["failed", "No candidate, and this browser does not report why", { code: "turn_unknown" }];
}

const errorText = (errors) => [...new Set(errors.map(({ code, text }) => `${code} ${text}`))].join("; ");

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

  /** `relayProblem` returns why the relay cannot be reached: a sentence, and a code of the table of remedies. */
  constructor(relay, peer, relayProblem) {
    Object.assign(this, { relay, peer, relayProblem });
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
      element("div", [each.sentence, each.remedy ? element("p", `\u2192 ${each.remedy}`) : ""]), milliseconds(each.ms),
    ]));
  }

  async run() {
    $("run-check").disabled = true;
    $("check-summary").textContent = "running";
    this.#results = [];
    try {
      if (await this.#browser() && await this.#signaling()) await this.#servers();
    } finally {
      $("run-check").disabled = $("copy-report").disabled = false;
    }
    const first = this.#results.find(({ result }) => result === "failed") ?? this.#results.find(({ result }) => result === "warning");
    $("check-summary").textContent = first ? `First: ${first.name} ${first.target}: ${first.remedy || first.sentence}` : "No problem found";
  }

  async #browser() {
    if (!window.RTCPeerConnection) { await this.#add("browser", "", "failed", "It has no RTCPeerConnection: turn WebRTC on in its settings, or its extensions"); return false; }
    await this.#add("browser", "", "ok", `${navigator.userAgent.slice(0, 120)}; ${navigator.onLine ? "online" : "offline"}`);
    return true;
  }

  /** Check the round trip to the relay; returns whether the network may be of use to the checks that follow. */
  async #signaling() {
    const times = [];
    try {
      for (let count = 0; count < PINGS; count++) times.push(await this.relay.ping());
    } catch {
      let [sentence, code] = await this.relayProblem();
      if (code === "no_connection" && !(await gather(null)).candidates.length) [sentence, code] = ["This browser has no network", "no_network"];
      await this.#add("relay", location.host, "failed", sentence, { code });
      return code !== "no_network";
    }
    times.sort((x, y) => x - y);
    await this.#add("relay", location.host, "ok", `${milliseconds(times[0])} min, ${milliseconds(times[PINGS >> 1])} median, ${milliseconds(times.at(-1))} max of ${PINGS} pings`, { ms: times[PINGS >> 1] });
    return true;
  }

  async #servers() {
    const servers = flat(this.peer.iceServers), working = [];
    let hasHost = false, isHidden = false;
    for (const server of servers) {
      const isTurn = server.urls.startsWith("turn"), wanted = isTurn ? "relay" : "srflx", name = isTurn ? "turn" : "stun";
      const gathered = await gather(server, isTurn ? "relay" : "all"), found = gathered.candidates.find(({ type }) => type === wanted);
      hasHost ||= gathered.candidates.some(({ type }) => type === "host");
      isHidden ||= gathered.candidates.some(({ type, address }) => type === "host" && address.endsWith(".local"));
      if (found && isTurn) working.push(server);
      if (found) await this.#add(name, server.urls, "ok", `${wanted} candidate ${found.address}`, { ms: found.ms });
      else await this.#add(name, server.urls, ...(isTurn ? turnResult(gathered, server) : stunResult(gathered)));
    }
    if (!servers.length) hasHost = (await gather(null)).candidates.length > 0;
    await this.#connections(servers, working, hasHost, isHidden);
  }

  async #connections(servers, turn, hasHost, isHidden) {
    const isAsked = servers.some(({ urls }) => !urls.startsWith("turn")) || !servers.length;
    if (isAsked && !hasHost && !turn.length) { await this.#add("addresses", "", "failed", "This browser has no network address for a candidate", { code: "no_network" }); return; }
    if (isHidden) await this.#add("addresses", "", "ok", "The browser hides its addresses behind mDNS names (.local)");
    const direct = await connectToSelf(servers, "all");
    if (direct === null) await this.#add("connection to itself", "", "failed", "Two connections of this page find no path to each other: a setting or an extension restricts WebRTC, or a firewall on this machine");
    else await this.#add("connection to itself", "", "ok", "Connected", { ms: direct });
    if (!turn.length) { await this.#add("connection by TURN", "", "skipped", servers.some(({ urls }) => urls.startsWith("turn")) ? "No TURN server works" : "There is no TURN server"); return; }
    const relayed = await connectToSelf(turn, "relay");
    if (relayed === null) await this.#add("connection by TURN", "", "failed", "No path through a TURN server", { code: "turn_no_data" });
    else await this.#add("connection by TURN", "", "ok", "Connected", { ms: relayed });
  }
}
