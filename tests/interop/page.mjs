// A person at the README's page: opens it, gives it an ID to pair with, and answers what it shows of the peer.
// Everything that the page shows is reported: its ID, and each line of its log.

const SAID = "hello from the page";

export function playPage(scene, report) {
  const frame = document.createElement("iframe");
  frame.src = `/peer.html?relay=${encodeURIComponent(scene.relay)}`;
  frame.onload = () => {
    const at = (id) => frame.contentDocument.getElementById(id);
    let lines = 0;
    const look = () => {
      for (const text of at("log").textContent.split("\n").slice(lines, -1)) {
        lines += 1;
        report("line", { text });
        if (!text.startsWith("peer: ")) continue;
        at("text").value = SAID;
        at("send").click();
      }
    };
    const known = () => {
      report("id", { id: at("me").textContent });
      if (!scene.target) return;
      at("target").value = scene.target;
      at("pair").click();
    };
    new MutationObserver(look).observe(at("log"), { childList: true });
    if (at("me").textContent !== "...") known();
    else new MutationObserver(known).observe(at("me"), { childList: true });
  };
  document.body.append(frame);
}
