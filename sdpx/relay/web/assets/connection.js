// The view of the connection: time line, candidates, candidate pairs, plots, and a diagnosis when it fails.

import { $, element, milliseconds, plot, remedies, rows, size } from "./page.js";

const SAMPLES = 120;

// The causes, by the codes of the diagnosis; each remedy is in the table of remedies.
const CAUSES = {
  bad_description: (id) => `The offer or answer of ${id} cannot be used`,
  no_network: () => "This browser has no network",
  no_answer: (id, seconds) => `No answer from ${id} arrived within ${seconds} s`,
  no_offer: (id, seconds) => `No offer from ${id} arrived within ${seconds} s of the pairing`,
  peer_silent: (id) => `The peer ${id} is silent: no packet arrives any more`,
  dtls_failed: (id) => `The network path to ${id} works, but the DTLS handshake failed`,
  no_channel: (id) => `The connection to ${id} is established, but no data channel is open`,
  only_mdns: (id) => `All candidates of ${id} are mDNS names (.local), which resolve within one local network only, and none worked`,
  no_common_candidates: (id) => `No candidate of ${id} fits one of this browser`,
  turn_refused: (id) => `No network path to ${id} was found, and a TURN server refused this browser`,
  stun_silent: (id) => `No network path to ${id} was found, and a STUN server does not answer`,
  ice_failed: (id) => `No pair of candidates worked between this browser and ${id}`,
  pairing_lost: (id) => `The peer ${id} left before the connection was established`,
};

/** Return the code of the diagnosis of a failed connection, by the rules of `sdpx peer`, as far as a browser has the facts. */
export function diagnose({ failure, isInitiator, timeline, hasOpened, pc, local, remote, iceErrors }, pairs) {
  const phases = new Set(timeline.map(({ phase }) => phase));
  if (failure) return failure;
  if (!navigator.onLine) return "no_network";
  if (hasOpened) return "peer_silent";
  if (phases.has("connected")) return "no_channel";
  if (phases.has("ICE connected") || phases.has("ICE completed")) return "dtls_failed";
  if (!local.length && pc?.iceGatheringState === "complete") return "no_network";
  if (isInitiator && !phases.has("answer received")) return "no_answer";
  if (!isInitiator && !phases.has("offer received")) return "no_offer";
  if (remote.length && remote.every(({ address }) => address?.endsWith(".local"))) return "only_mdns";
  if (!remote.length || !pairs) return "no_common_candidates";
  if (iceErrors.some(({ url, errorCode }) => url?.startsWith("turn") && errorCode < 600)) return "turn_refused";
  if (iceErrors.some(({ url }) => url?.startsWith("stun")) && !local.some(({ type }) => type === "srflx")) return "stun_silent";
  return "ice_failed";
}

export class ConnectionView {
  #rtts = []; #rates = []; #lastBytes = null; #pairs = 0;

  constructor(peer) {
    this.peer = peer;
    this.code = null;
    peer.addEventListener("timeline", () => this.#drawTimeline());
    peer.addEventListener("paired", () => { this.#rtts = []; this.#rates = []; this.#lastBytes = null; this.#pairs = 0; this.code = null; this.#showDiagnosis(""); });
    peer.addEventListener("failed", ({ detail }) => this.#onFailed(detail.detail));
    peer.addEventListener("open", () => { this.code = null; this.#showDiagnosis(""); });
    setInterval(() => this.#sample(), 1000);
  }

  async #onFailed(detail) {
    const code = diagnose(this.peer, this.#pairs), seconds = Math.round((performance.now() - this.peer.began) / 1000);
    this.code = code;
    const cause = CAUSES[code](this.peer.name, seconds), remedy = (await remedies)[code] ?? "";
    this.#showDiagnosis(`${cause}${detail ? ` (${detail})` : ""}: ${remedy} (${code})`);
  }

  #showDiagnosis(text) {
    $("diagnosis").textContent = text;
    $("diagnosis").className = text ? "failed" : "";
    this.peer.dispatchEvent(new CustomEvent("diagnosis", { detail: text }));
  }

  #drawTimeline() {
    $("timeline").replaceChildren(...this.peer.timeline.map(({ phase, ms }) => element("li", `${phase}  ${milliseconds(ms)}`)));
  }

  async #sample() {
    const pc = this.peer.pc;
    if (!pc || ["failed", "closed"].includes(pc.connectionState)) return;  // the tables from before the failure stay
    const stats = [...(await pc.getStats()).values()];
    const byId = new Map(stats.map((each) => [each.id, each]));
    const transport = stats.find(({ type }) => type === "transport");
    const pairs = stats.filter(({ type }) => type === "candidate-pair");
    this.#pairs = Math.max(this.#pairs, pairs.length);
    const selected = byId.get(transport?.selectedCandidatePairId) ?? pairs.find((pair) => pair.selected || (pair.nominated && pair.state === "succeeded"));
    this.#drawTables(stats, pairs, selected, byId);
    if (!selected) return;
    const bytes = (selected.bytesSent ?? 0) + (selected.bytesReceived ?? 0);
    const rate = this.#lastBytes === null ? 0 : Math.max(0, bytes - this.#lastBytes);
    this.#lastBytes = bytes;
    this.#rates = [...this.#rates, rate].slice(-SAMPLES);
    this.#rtts = [...this.#rtts, (selected.currentRoundTripTime ?? 0) * 1000].slice(-SAMPLES);
    $("rtt-now").textContent = milliseconds(this.#rtts.at(-1));
    $("rate-now").textContent = size(rate);
    plot($("rtt"), this.#rtts, SAMPLES);
    plot($("rate"), this.#rates, SAMPLES);
  }

  #drawTables(stats, pairs, selected, byId) {
    const host = (each) => each.address || each.ip || "hidden";
    const address = (each) => (each ? `${host(each).includes(":") ? `[${host(each)}]` : host(each)}:${each.port ?? ""}` : "");
    const candidates = stats.filter(({ type }) => type === "local-candidate" || type === "remote-candidate").sort((a, b) => a.type.localeCompare(b.type));
    rows($("candidates"), candidates.map((each) =>
      [each.type.split("-")[0], each.candidateType, each.relayProtocol ?? each.protocol, address(each)]));
    const ids = [selected?.localCandidateId, selected?.remoteCandidateId];
    rows($("pairs"), pairs.map((pair) => [
      pair === selected ? "yes" : "", pair.state, address(byId.get(pair.localCandidateId)), address(byId.get(pair.remoteCandidateId)),
      milliseconds(pair.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000), size(pair.bytesSent ?? 0), size(pair.bytesReceived ?? 0),
    ]), (index) => (pairs[index] === selected ? "selected" : ""));
    [...$("candidates").rows].forEach((row, index) => row.classList.toggle("selected", ids.includes(candidates[index].id)));
  }
}
