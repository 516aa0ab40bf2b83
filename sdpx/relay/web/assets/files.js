// File transfers with `sdpx send`, `sdpx receive` and other pages: docs/transfer.md, "On the wire". One connection long.

import { decode, encode } from "./msgpack.js";
import { Sha256 } from "./sha256.js";

const HELLO = 0, DATA = 1, GRANT = 2, ABORT = 3, WINDOW = 4 << 20, GRANT_STEP = WINDOW / 8, CHUNK = 60000, HIGH_WATER = 1 << 20;
const BEGIN = 0, BYTES = 1, END = 2, FAILED = 3, SAME = 4, DIFFERENT = 5, RECORD_BYTES = 9;
const RECORDS = 0, MESSAGE = 1;  // the first byte of a message: records follow, or MessagePack

function joined(...parts) {
  const made = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) { made.set(part, at); at += part.length; }
  return made;
}

const json = (kind, value) => joined(Uint8Array.of(kind), new TextEncoder().encode(JSON.stringify(value)));

function record(kind, number, payload = new Uint8Array()) {
  const made = new Uint8Array(RECORD_BYTES + payload.length), view = new DataView(made.buffer);
  view.setUint8(0, kind);
  view.setUint32(1, number);
  view.setUint32(5, payload.length);
  made.set(payload, RECORD_BYTES);
  return made;
}

const same = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

/** One transfer over an open channel. Events: `offer` (accept it or not), `progress`, `file`, `finished`, `failed`. */
export class Transfer extends EventTarget {
  #channel; #sent = 0; #limit = 0; #received = 0; #taken = 0; #granted = 0; #timer = 0; #queue = Promise.resolve(); #room = [];
  #opened; #greeted; #greet; #messages = []; #wake = () => {}; #awaited = []; #entries = 0; #complete = 0; #failed = 0; #file = null; #total = 0; #moved = 0;
  isOver = false;

  constructor(channel) {
    super();
    this.#channel = channel;
    channel.binaryType = "arraybuffer";
    channel.bufferedAmountLowThreshold = HIGH_WATER / 4;
    this.#greeted = new Promise((resolve) => { this.#greet = resolve; });
    channel.onmessage = ({ data }) => { this.#queue = this.#queue.then(() => this.#receive(new Uint8Array(data))).catch((error) => this.#fail(error.message)); };
    channel.onclose = () => { if (!this.isOver) this.#fail("the connection was lost"); };
    const hello = { stream: crypto.getRandomValues(new Uint32Array(2)).join("-"), role: "both", peer_stream: "", received: 0, limit: WINDOW, version: 1 };
    this.#opened = new Promise((resolve) => {  // messages may come before the event
      const open = () => { channel.send(json(HELLO, hello)); resolve(); };
      if (channel.readyState === "open") open();
      else channel.onopen = open;
    });
  }

  #emit(type, detail = {}) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #fail(reason) {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.#timer);
    this.#wake();
    this.#room.splice(0).forEach((resolve) => resolve());
    this.#emit("failed", { reason });
  }

  abort(code, reason) {
    this.isOver = true;
    if (this.#channel.readyState === "open") this.#channel.send(json(ABORT, { code, reason }));
  }

  // ---- the stream

  async #receive(frame) {
    const payload = frame.subarray(1), view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    if (frame[0] === HELLO) {
      this.#limit = JSON.parse(new TextDecoder().decode(payload)).limit;
      this.#greet();
    } else if (frame[0] === GRANT) {
      this.#limit = Math.max(this.#limit, Number(view.getBigUint64(9)));
      this.#room.splice(0).forEach((resolve) => resolve());
    } else if (frame[0] === ABORT) {
      this.#fail(JSON.parse(new TextDecoder().decode(payload)).reason);
    } else if (frame[0] === DATA) {
      this.#received += frame.length;
      await this.#onMessage(payload);
      this.#taken += frame.length;
      if (this.#taken - this.#granted >= GRANT_STEP) this.#grant();
      else this.#timer ||= setTimeout(() => this.#grant(), 20);
    } else throw new Error(`a frame has the unknown type ${frame[0]}`);
  }

  #grant() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#granted = this.#taken;
    const frame = new DataView(new ArrayBuffer(17));
    frame.setUint8(0, GRANT);
    frame.setBigUint64(1, BigInt(this.#taken));
    frame.setBigUint64(9, BigInt(this.#taken + WINDOW));
    if (this.#channel.readyState === "open") this.#channel.send(frame.buffer);
  }

  async #send(...parts) {
    const frame = joined(Uint8Array.of(DATA), ...parts);
    await Promise.all([this.#opened, this.#greeted]);
    while (this.#sent + frame.length > this.#limit && !this.isOver) await new Promise((resolve) => this.#room.push(resolve));
    if (this.#channel.bufferedAmount > HIGH_WATER) await new Promise((resolve) => { this.#channel.onbufferedamountlow = resolve; });
    if (this.isOver) throw new Error("the transfer is over");
    this.#sent += frame.length;
    this.#channel.send(frame);
  }

  #sendMessage(...message) { return this.#send(Uint8Array.of(MESSAGE), ...encode(message)); }

  async #onMessage(payload) {
    if (payload[0] === RECORDS) { await this.#onRecords(payload.subarray(1)); return; }
    const [kind, ...values] = decode(payload.subarray(1));
    switch (kind) {
      case "offer": return this.#onOffer(values);
      case "entries": return this.#onEntries(values[0]);
      case "done":
        this.#emit("finished", { complete: this.#complete, failed: this.#failed });
        await this.#sendMessage("verdict", this.#complete, this.#failed);
        this.isOver = true;
        return undefined;
      case "bye": return undefined;
      default:
        this.#messages.push([kind, ...values]);  // for the sender
        this.#wake();
    }
    return undefined;
  }

  // ---- receiving

  async #onOffer([names, files, directories, size]) {
    this.#total = size;
    const isWanted = await new Promise((resolve) => this.#emit("offer", { names, files, size, answer: resolve }));
    if (isWanted) await this.#sendMessage("accept");
    else { this.abort("declined", "The offer was declined"); this.#emit("failed", { reason: "declined" }); }
  }

  async #onEntries(entries) {
    for (const [kind, name, size] of entries) {
      const number = this.#entries++;
      if (kind === "file") this.#awaited.push({ number, name: new TextDecoder().decode(name), size, parts: [], hash: new Sha256() });
      else this.#complete++;
    }
    await this.#sendMessage("choices", entries.map(() => [0, new Uint8Array(), false, true, ""]));
  }

  async #onRecords(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), results = [];
    for (let at = 0; at < bytes.length;) {
      const kind = bytes[at], number = view.getUint32(at + 1), length = view.getUint32(at + 5);
      const body = bytes.slice(at + RECORD_BYTES, at + RECORD_BYTES + length), file = this.#awaited[0];
      at += RECORD_BYTES + length;
      if (!file || file.number !== number || body.length !== length) throw new Error("a record is out of order");
      if (kind === BYTES) {
        file.parts.push(body);
        file.hash.update(body);
        this.#moved += length;
      } else if (kind === END || kind === FAILED) {
        const problem = kind === FAILED ? new TextDecoder().decode(body) : same(file.hash.digest(), body) ? "" : "the hash is another one";
        this.#awaited.shift();
        if (problem) this.#failed++;
        else { this.#complete++; this.#emit("file", { name: file.name, blob: new Blob(file.parts) }); }
        results.push([number, problem]);
      } else if (kind !== BEGIN) throw new Error("a record is unknown");
    }
    this.#emit("progress", { part: this.#total ? this.#moved / this.#total : 1 });
    if (results.length) await this.#sendMessage("results", results);
  }

  // ---- sending

  async #next(...kinds) {
    for (;;) {
      const at = this.#messages.findIndex(([kind]) => kinds.includes(kind));
      if (at >= 0) return this.#messages.splice(at, 1)[0];
      if (this.isOver) throw new Error("the transfer is over");
      await new Promise((resolve) => { this.#wake = resolve; });
    }
  }

  /** Send files; rejects if not all of them arrive. */
  async send(files) {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    await this.#sendMessage("offer", files.slice(0, 20).map(({ name }) => name), files.length, 0, size);
    await this.#next("accept");
    const name = ({ name: text }) => new TextEncoder().encode(text);
    await this.#sendMessage("entries", files.map((file) => ["file", name(file), file.size, 0o644, BigInt(file.lastModified) * 1000000n]));
    const [, choices] = await this.#next("choices");
    let moved = 0;
    for (const [number, [, digest, , mayRestart, refused]] of choices.entries()) {
      const file = files[number];
      if (refused) continue;
      if (digest.length && !mayRestart) { await this.#sendExisting(number, file, choices[number]); continue; }
      const head = new DataView(new ArrayBuffer(28)), hash = new Sha256();
      head.setBigUint64(8, BigInt(file.size));
      head.setUint32(16, 0o644);
      head.setBigInt64(20, BigInt(file.lastModified) * 1000000n);
      await this.#send(Uint8Array.of(RECORDS), record(BEGIN, number, new Uint8Array(head.buffer)));
      for (let at = 0; at < file.size; at += CHUNK) {
        const part = new Uint8Array(await file.slice(at, at + CHUNK).arrayBuffer());
        hash.update(part);
        await this.#send(Uint8Array.of(RECORDS), record(BYTES, number, part));
        moved += part.length;
        this.#emit("progress", { part: moved / size });
      }
      await this.#send(Uint8Array.of(RECORDS), record(END, number, hash.digest()));
    }
    await this.#sendMessage("done");
    const [, , failed] = await this.#next("verdict");
    await this.#sendMessage("bye");
    this.isOver = true;
    this.#emit("progress", { part: 1 });
    if (failed) throw new Error(this.#problem ?? "not all files arrived");
  }

  get #problem() {
    const results = this.#messages.filter(([kind]) => kind === "results").flatMap(([, each]) => each);
    return results.find(([, problem]) => problem)?.[1];
  }

  /** Send the record that says whether the file of the receiver is this one. */
  async #sendExisting(number, file, [offset, digest, isWhole]) {
    const hash = new Sha256();
    for (let at = 0; at < offset; at += CHUNK) hash.update(new Uint8Array(await file.slice(at, Math.min(at + CHUNK, offset)).arrayBuffer()));
    const isSame = isWhole && offset === file.size && same(hash.digest(), digest);
    await this.#send(Uint8Array.of(RECORDS), record(isSame ? SAME : DIFFERENT, number));
  }
}
