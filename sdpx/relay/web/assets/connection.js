// The view of the connection: time line, candidates, candidate pairs, plots, and a diagnosis when it fails.

import { $, element, milliseconds, plot, remedies, rows, size } from "./page.js";

const SAMPLES = 120;

/** Return the code of the diagnosis of a failed connection, by the rules of `sdpx peer` as far as a browser tells. */
export function diagnose({ isInitiator, timeline, failure }, stats, iceErrors, relayOnly = false) {
  const phases = new Set(timeline.map(({ phase }) => phase));
  const of = (type) => stats.filter((each) => each.type === type);
  const local = of("local-candidate"), remote = of("remote-candidate"), pairs = of("candidate-pair");
  if (failure) return failure;
  if (isInitiator && !phases.has("answer received")) return "no_answer";
  if (!isInitiator && !phases.has("offer received")) return "no_offer";
  if (phases.has("ICE connected") || phases.has("ICE completed")) return phases.has("channel open") ? "peer_silent" : "dtls_failed";
  if (relayOnly && !local.some(({ candidateType }) => candidateType === "relay")) return iceErrors.some(({ errorCode }) => errorCode < 600) ? "turn_refused" : "no_turn";
  if (remote.length && remote.every(({ address }) => address?.endsWith(".local"))) return "only_mdns";
  if (!remote.length || !pairs.length) return "no_common_candidates";
  if (iceErrors.some(({ url, errorCode }) => url?.startsWith("turn") && errorCode < 600)) return "turn_refused";
  if (iceErrors.some(({ url }) => url?.startsWith("stun")) && !local.some(({ candidateType }) => candidateType === "srflx")) return "stun_silent";
  return "ice_failed";
}

export class ConnectionView {
  #rtts = []; #rates = []; #lastBytes = null; #lastStats = [];

  constructor(peer) {
    this.peer = peer;
    this.code = null;
    peer.addEventListener("timeline", () => this.#drawTimeline());
    peer.addEventListener("paired", () => { this.#rtts = []; this.#rates = []; this.#lastBytes = null; this.#lastStats = []; this.code = null; this.#say(""); });
    peer.addEventListener("failed", () => this.#onFailed());
    peer.addEventListener("problem", ({ detail }) => this.#onFailed(detail.text));
    peer.addEventListener("left", () => { if (peer.failure) this.#onFailed(); });
    setInterval(() => this.#sample(), 1000);
  }

  async #onFailed(detail = "") {
    await this.#sample();
    this.code = diagnose(this.peer, this.#lastStats, this.peer.iceErrors);
    const remedy = (await remedies)[this.code] ?? "";
    this.#say(`${this.code}: ${remedy}${detail ? ` (${detail})` : ""}`);
  }

  #say(text) {
    $("diagnosis").textContent = text;
    $("diagnosis").className = text ? "failed" : "";
    this.peer.dispatchEvent(new CustomEvent("diagnosis", { detail: text }));
  }

  #drawTimeline() {
    $("timeline").replaceChildren(...this.peer.timeline.map(({ phase, ms }) => element("li", `${phase}  ${milliseconds(ms)}`)));
  }

  async #sample() {
    const pc = this.peer.pc;
    if (!pc || pc.connectionState === "closed") return;
    const stats = [...(await pc.getStats()).values()];
    this.#lastStats = stats;
    const byId = new Map(stats.map((each) => [each.id, each]));
    const transport = stats.find(({ type }) => type === "transport");
    const pairs = stats.filter(({ type }) => type === "candidate-pair");
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
    const address = (each) => (each ? `${each.address ?? each.ip ?? "hidden"}:${each.port ?? ""}` : "");
    const candidates = stats.filter(({ type }) => type === "local-candidate" || type === "remote-candidate");
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
