// The live view of the relay, from /stats.json: plots of ten minutes, refusals, and for administrators the clients.

import { $, element, plot, rows, size } from "./page.js";

const POLL_MS = 2000;
const PLOTS = [
  ["Clients", (now) => now.clients, String],
  ["Pairs", (now) => now.pairs, String],
  ["Messages a second", (now, before, seconds) => (now.messages - before.messages) / seconds, (value) => value.toFixed(1)],
  ["Bytes a second", (now, before, seconds) => (now.bytes - before.bytes) / seconds, size],
  ["Refusals a second", (now, before, seconds) => (now.refused - before.refused) / seconds, (value) => value.toFixed(2)],
  ["Relay time, ms", (now, before) => (now.timed > before.timed ? 1000 * (now.relay_seconds - before.relay_seconds) / (now.timed - before.timed) : 0), (value) => value.toFixed(2)],
];

export class RelayView {
  #timer = 0; #drawings; #clients = [];

  constructor(token) {
    this.token = token;
    this.#drawings = PLOTS.map(([label]) => {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), value = element("span", "-");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", label);
      $("relay-plots").append(element("figure", [element("figcaption", [`${label}: `, value]), svg]));
      return { svg, value };
    });
    $("filter").oninput = () => this.#drawClients();
  }

  /** Poll while the view is shown. */
  show(isShown) {
    clearTimeout(this.#timer);
    if (isShown) this.#poll();
  }

  #headers() { return this.token() ? { Authorization: `Bearer ${this.token()}` } : {}; }

  async #poll() {
    try {
      const answer = await fetch("stats.json", { headers: this.#headers() }), body = await answer.json();
      if (answer.ok) { $("relay-state").textContent = ""; this.#draw(body); } else { $("relay-state").textContent = body.message; }
    } catch (error) {
      $("relay-state").textContent = `The relay does not answer: ${error.message}`;
    }
    this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  #draw({ history, now, sample_seconds, refusals, clients }) {
    const samples = [...history, now];
    PLOTS.forEach(([, valueOf, show], index) => {
      const values = samples.slice(1).map((sample, at) => valueOf(sample, samples[at], sample_seconds));
      const { svg, value } = this.#drawings[index];
      plot(svg, values, 300);
      value.textContent = values.length ? show(values.at(history.length > 1 ? -2 : -1) ?? 0) : "-";
    });
    rows($("refusals"), Object.entries(refusals).sort((a, b) => b[1] - a[1]).map(([code, count]) => [code, String(count)]));
    $("clients-part").hidden = !clients;
    this.#clients = clients ?? [];
    this.#drawClients();
  }

  #drawClients() {
    const wanted = $("filter").value.trim();
    const shown = this.#clients.filter(({ id, remote, peer }) => !wanted || [id, remote, peer].some((text) => text?.includes(wanted)));
    rows($("clients"), shown.map(({ id, remote, peer, seconds, suspended }) => {
      const button = element("button", "Disconnect");
      button.type = "button";
      button.setAttribute("aria-label", `Disconnect ${id}`);
      button.onclick = () => this.#disconnect(id);
      return [id, button, remote, suspended ? `${peer ?? ""} (suspended)` : peer ?? "", String(seconds)];
    }));
  }

  async #disconnect(id) {
    await fetch(`clients/${encodeURIComponent(id)}`, { method: "DELETE", headers: this.#headers() });
    this.show(true);
  }
}
