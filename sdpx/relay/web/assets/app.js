// The page: views, token, and the peer's controls.

import { Signaling } from "../sdpx.js";
import { CheckView } from "./check.js";
import { ConnectionView } from "./connection.js";
import { $, copy, element, remedies, size } from "./page.js";
import { Peer } from "./peer.js";
import { RelayView } from "./relay.js";

const VIEWS = ["peer", "check", "connection", "relay"];
const fragment = new URLSearchParams(location.hash.slice(1));
const base = new URL(".", location.href);
let token = fragment.get("token");  // in memory from here on
let views = null;

/** Show the view that the fragment names; `#pair=ID` is that of the peer. */
function showView() {
  const name = VIEWS.find((each) => location.hash === `#${each}`) ?? "peer";
  for (const section of document.querySelectorAll("[data-for]")) section.hidden = section.dataset.for !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  views?.relay.show(name === "relay");
}

function note(text, kind = "note") {
  const line = element("li", text, kind);
  $("messages").append(line);
  $("messages").scrollTop = $("messages").scrollHeight;
  return line;
}

/** Return why a WebSocket did not open, which browsers do not report: a sentence, and a code of the table of remedies. */
async function relayProblem() {
  try {
    const answer = await fetch(new URL("stats.json", base), { headers: token ? { Authorization: `Bearer ${token}` } : {} });
    if (![401, 429].includes(answer.status)) return ["The relay answers, but refuses the WebSocket", "websocket_refused"];
    const { message } = await answer.json();
    $("token-reason").textContent = message;
    if ($("token-form").hidden) { $("token-form").hidden = false; $("token").focus(); }
    return [message];
  } catch {
    const isOffline = !navigator.onLine && !/^(?:localhost|127\.[\d.]+|\[::1\])$/.test(location.hostname);
    return isOffline ? ["This browser is offline", "no_network"] : [`The relay at ${location.host} cannot be reached`, "no_connection"];
  }
}

function start() {
  const relay = new Signaling(base, { id: sessionStorage.getItem("sdpx-id"), token });
  const peer = new Peer(relay);
  views = { check: new CheckView(relay, peer, relayProblem), connection: new ConnectionView(peer), relay: views?.relay ?? new RelayView(() => token) };
  showConnectionToRelay(relay);
  pairWhenOpen(relay);
  showConnectionToPeer(peer);
  showMessagesAndFiles(peer);
  bindControls(relay, peer);
  globalThis.sdpx = { relay, peer, views };  // for the console
  updateControls(peer);
  showView();
}

/** Show the state of the connection to the relay, and the form for a token where the relay asks for one. */
function showConnectionToRelay(relay) {
  let problem = "", refusals = 0;
  const showState = (state) => { $("state").textContent = state === "open" ? "connected to the relay" : problem || state; };
  relay.on("state", (state) => { if (state === "open") problem = ""; showState(state); });
  relay.on("retry", async () => {
    const [sentence, code] = await relayProblem();
    if (relay.isOpen || relay !== globalThis.sdpx.relay) return;
    problem = `${sentence}${code ? `: ${(await remedies)[code] ?? ""}` : ""}`;
    showState("connecting");
    if (code === "websocket_refused" && ++refusals === 3 && sessionStorage.getItem("sdpx-id")) {  // it may be in use: ask for another
      sessionStorage.removeItem("sdpx-id");
      relay.close();
      start();
    }
  });
  relay.on("failed", ({ reason }) => { $("state").textContent = reason || "closed"; });
  relay.on("open", ({ id }) => {
    refusals = 0;
    $("token-form").hidden = true;
    sessionStorage.setItem("sdpx-id", id);
    showOwnId(id);
  });
  relay.on("error", ({ code, message, target_id }) =>
    note(code === "target_not_found" ? `No peer '${target_id}' is connected to this relay: check the ID, or start it` : message, "note failed"));
}

/** Show the ID of this page, the link that connects to it, and the QR code of the link. */
function showOwnId(id) {
  const link = new URL(`#pair=${id}`, base);
  const query = new URLSearchParams({ pair: id, scheme: location.protocol.slice(0, -1), path: base.pathname });
  $("copy-id").disabled = $("copy-link").disabled = false;
  $("id").textContent = id;
  $("link").href = $("link").textContent = link.href;
  $("qr").src = new URL(`qr.svg?${query}`, base).href;
  $("qr").hidden = false;
}

/** Request the pairing of the link that opened the page, or the one that was there before a reload. */
function pairWhenOpen(relay) {
  let wanted = fragment.get("pair") ?? sessionStorage.getItem("sdpx-peer");
  relay.on("open", ({ id }) => {
    if (wanted && wanted !== id && !relay.peerId) { relay.pair(wanted); wanted = null; }
  });
}

function showConnectionToPeer(peer) {
  peer.addEventListener("paired", () => {
    sessionStorage.removeItem("sdpx-peer");
    if (peer.isInitiator) sessionStorage.setItem("sdpx-peer", peer.peerId);
    $("peer-state").textContent = `paired with ${peer.peerId}`;
    $("leave").disabled = false;
  });
  peer.addEventListener("open", () => { note(`connected to ${peer.peerId}`); updateControls(peer); });
  peer.addEventListener("state", () => updateControls(peer));
  peer.addEventListener("diagnosis", ({ detail }) => { if (detail) note(detail, "note failed"); });
  peer.addEventListener("left", ({ detail: { reason } }) => {
    note(reason === "relay" ? "the relay has lost the session" : `the peer left${reason === "left" ? "" : ` (${reason})`}`);
    $("peer-state").textContent = "";
    $("leave").disabled = true;
    updateControls(peer);
  });
}

function showMessagesAndFiles(peer) {
  peer.addEventListener("message", ({ detail: { data } }) => note(typeof data === "string" ? data : `[${data.byteLength} bytes]`, "theirs"));
  peer.addEventListener("progress", ({ detail: { part } }) => showProgress(part));
  peer.addEventListener("file", ({ detail: { name, blob } }) => {
    const link = element("a", name);
    link.href = URL.createObjectURL(blob);
    link.download = name.replace(/[/\\\0]/g, "_");
    note("", "theirs").append("file: ", link);
    showProgress(1);
  });
  peer.addEventListener("offer", ({ detail: { names, files, size: bytes, answer } }) => {
    const line = note(`${peer.peerId} offers ${files} file(s), ${size(bytes)}: ${names.join(", ")} `, "theirs");
    for (const [label, isWanted] of [["Accept", true], ["Decline", false]]) {
      const button = element("button", label);
      button.type = "button";
      button.onclick = () => { line.querySelectorAll("button").forEach((each) => each.remove()); answer(isWanted); };
      line.append(button, " ");
    }
  });
  peer.addEventListener("finished", ({ detail: { complete, failed } }) => { note(`received: ${complete}${failed ? `, failed: ${failed}` : ""}`); showProgress(1); });
  peer.addEventListener("filesfailed", ({ detail: { reason } }) => { note(`the file transfer failed: ${reason}`, "note failed"); showProgress(1); });
}

function showProgress(part) {
  $("progress").value = part;
  $("progress").hidden = part >= 1;
}

/** Enable the controls that can be used now. */
function updateControls(peer) {
  const isOpen = peer.channel?.readyState === "open";
  $("text").disabled = $("send").disabled = !isOpen;
  $("file").disabled = !peer.canSendFiles;
  $("files-state").textContent = isOpen && !peer.takesFiles ? ` - ${peer.peerId} takes none: it needs --files DIR, or sdpx receive` : "";
  if (peer.peerId) $("peer-state").textContent = isOpen || peer.canSendFiles ? `connected to ${peer.peerId}` : `${peer.pc?.connectionState ?? "paired"}: ${peer.peerId}`;
}

async function sendFiles(peer, list) {
  const files = [...list], names = files.map(({ name }) => name).join(", ");
  if (!files.length || $("file").disabled) return;
  try {
    await peer.sendFiles(files);
    note(`sent: ${names}`, "mine");
  } catch (error) {
    note(`${names}: ${error.message}`, "note failed");
  }
  $("file").value = "";
}

function bindControls(relay, peer) {
  $("pair-form").onsubmit = (event) => {
    event.preventDefault();
    const text = $("target").value.trim();
    relay.pair(text.includes("pair=") ? text.split("pair=").pop() : text);  // a link, too
  };
  $("leave").onclick = () => { sessionStorage.removeItem("sdpx-peer"); relay.unpair(); };
  $("text-form").onsubmit = (event) => {
    event.preventDefault();
    peer.channel.send($("text").value);
    note($("text").value, "mine");
    $("text").value = "";
  };
  $("file").onchange = () => sendFiles(peer, $("file").files);
  $("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
  $("drop").ondragleave = () => $("drop").classList.remove("over");
  $("drop").ondrop = (event) => { event.preventDefault(); $("drop").classList.remove("over"); sendFiles(peer, event.dataTransfer.files); };
  $("copy-id").onclick = () => copy($("copy-id"), relay.id);
  $("copy-link").onclick = () => copy($("copy-link"), $("link").href);
  $("copy-report").onclick = () => copy($("copy-report"), views.check.report);
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    $("token").value = "";
    $("token-form").hidden = true;
    relay.close();
    start();
  };
}

addEventListener("hashchange", () => {
  const pair = new URLSearchParams(location.hash.slice(1)).get("pair");
  if (pair) globalThis.sdpx?.relay.pair(pair);
  showView();
});
start();
