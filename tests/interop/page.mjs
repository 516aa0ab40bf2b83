// Use a page without a library as a person does: open it, pair, and answer the peer's messages.
// The ID that the page shows, and each line of its log, are reported. The message "reload" reloads the page, which then pairs again.

const REPLY = "hello from the page";

export function runPage(scenario, report) {
  const frame = document.createElement("iframe");
  frame.src = `/peer.html?relay=${encodeURIComponent(scenario.relay)}`;
  frame.onload = () => {
    const at = (id) => frame.contentDocument.getElementById(id);
    let lines = 0;
    const readLog = () => {
      for (const text of at("log").textContent.split("\n").slice(lines, -1)) {
        lines += 1;
        report("line", { text });
        if (text === "peer: reload") frame.contentWindow.location.reload();
        if (!text.startsWith("peer: ") || text === "peer: reload") continue;
        at("text").value = REPLY;
        at("send").click();
      }
    };
    const pair = () => {
      report("id", { id: at("me").textContent });
      if (!scenario.target) return;
      at("target").value = scenario.target;
      at("pair").click();
    };
    new MutationObserver(readLog).observe(at("log"), { childList: true });
    if (at("me").textContent !== "...") pair();
    else new MutationObserver(pair).observe(at("me"), { childList: true });
  };
  document.body.append(frame);
}
