// Helpers of the page's parts.

export const $ = (id) => document.getElementById(id);

/** Make an element with these texts or elements inside. */
export function element(tag, parts = [], classes = "") {
  const made = document.createElement(tag);
  made.append(...[parts].flat());
  if (classes) made.className = classes;
  return made;
}

/** Replace the rows of a table's body; a cell is a text, or an element. */
export function rows(body, lines, classOf = () => "") {
  body.replaceChildren(...lines.map((cells, index) =>
    element("tr", cells.map((cell) => element("td", cell ?? "")), classOf(index))));
}

/** Draw values as a line in an SVG element, the last one at its right edge. */
export function plot(svg, values, count = values.length) {
  const most = Math.max(...values, 1e-9), width = Math.max(count - 1, 1);
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  const points = values.map((value, index) =>
    `${(100 * (index + count - values.length) / width).toFixed(2)},${(98 - 94 * value / most).toFixed(2)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  svg.replaceChildren(line);
}

/** Copy a text; says on the button whether it worked. */
export async function copy(button, text) {
  const label = button.dataset.label ??= button.textContent;
  const isCopied = await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => true, () => copySelection(button, text));
  button.textContent = isCopied ? "Copied" : "Not allowed";
  setTimeout(() => { button.textContent = label; }, 1500);
}

/** Copy a text without the clipboard interface, which pages over plain http do not have. */
function copySelection(button, text) {
  const field = element("textarea");
  field.value = text;
  button.after(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  button.focus();
  return isCopied;
}

export const milliseconds = (value) => (value === undefined || value === null ? "" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit++; }
  return `${bytes.toFixed(unit && bytes < 100 ? 1 : 0)} ${units[unit]}`;
}

/** The remedies of the codes of diagnoses: those of `sdpx peer` and `sdpx doctor`. */
export const remedies = fetch(new URL("remedies.json", import.meta.url)).then((answer) => answer.json(), () => ({}));

/** Return type and address of a candidate (RFC 8839, 5.1); not all browsers have them as attributes. */
export function parseCandidate(text) {
  const [, address, , type] = /^(?:a=)?candidate:\S+ \S+ \S+ \S+ (\S+) (\S+) typ (\S+)/.exec(text) ?? [];
  return { type, address };
}

// Safari has no lookbehind before 16.4: the character before an address is part of the match.
const IPV4 = /(^|[^\w.])(\d{1,3}(?:\.\d{1,3}){3})(?!\w|\.\d)/g, IPV6 = /(^|[^\w:.])((?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4})(?![\w:])/gi;

/** Shorten the addresses in a text, but for loopback ones. */
export function shortenAddresses(text) {
  const shortened = text.replace(IPV4, (_, before, address) =>
    before + (address.startsWith("127.") ? address : `${address.split(".").slice(0, 2).join(".")}.x.x`));
  return shortened.replace(IPV6, (_, before, address) => {
    const groups = address.split(":");
    const isAddress = address.includes("::") ? groups.filter(Boolean).length > 1 : groups.length === 8;
    return before + (isAddress ? `${groups.slice(0, 2).join(":")}::x` : address);
  });
}
