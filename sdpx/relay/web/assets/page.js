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
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
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

const HIDDEN = /(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])/gi;

/** Shorten the addresses in a text, but for loopback ones. */
export function shortenAddresses(text) {
  return text.replace(HIDDEN, (address) => {
    if (address.includes(".")) return address.startsWith("127.") ? address : `${address.split(".").slice(0, 2).join(".")}.x.x`;
    const groups = address.split(":");
    return address === "::1" || !/[0-9a-f]/i.test(address) || groups.filter(Boolean).length < 3 ? address : `${groups.slice(0, 2).join(":")}::x`;
  });
}
