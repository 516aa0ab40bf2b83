// SHA-256 (FIPS 180-4) of data that comes in parts: crypto.subtle takes only the whole, and is missing on plain http://.

const ROUND = new Uint32Array(64), START = new Uint32Array(8);
for (let prime = 2, count = 0; count < 64; prime++) {
  if ([...Array(prime).keys()].some((each) => each > 1 && prime % each === 0)) continue;
  const bits = (root) => ((prime ** root) % 1) * 2 ** 32;
  if (count < 8) START[count] = bits(1 / 2);
  ROUND[count++] = bits(1 / 3);
}
const turn = (word, by) => (word >>> by) | (word << (32 - by));

export class Sha256 {
  #state = START.slice(); #block = new Uint8Array(64); #filled = 0; #length = 0; #words = new Uint32Array(64);

  update(bytes) {
    this.#length += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + 64 - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === 64) { this.#compress(); this.#filled = 0; }
    }
  }

  digest() {
    const length = this.#length * 8, end = new Uint8Array(((119 - this.#filled) % 64) + 9);
    end[0] = 0x80;
    new DataView(end.buffer).setUint32(end.length - 8, Math.floor(length / 2 ** 32));
    new DataView(end.buffer).setUint32(end.length - 4, length >>> 0);
    this.update(end);
    const digest = new DataView(new ArrayBuffer(32));
    this.#state.forEach((word, index) => digest.setUint32(4 * index, word));
    return new Uint8Array(digest.buffer);
  }

  #compress() {
    const words = this.#words, view = new DataView(this.#block.buffer);
    for (let at = 0; at < 16; at++) words[at] = view.getUint32(4 * at);
    for (let at = 16; at < 64; at++) {
      const x = words[at - 15], y = words[at - 2];
      words[at] = words[at - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + words[at - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = this.#state;
    for (let at = 0; at < 64; at++) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUND[at] + words[at]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + one) | 0; d = c; c = b; b = a; a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => { this.#state[index] += word; });
  }
}
