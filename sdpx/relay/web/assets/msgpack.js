// MessagePack, as far as file transfers need it: null, booleans, numbers, strings, bytes, arrays.

export function encode(value) {
  const parts = [];
  const head = (...bytes) => parts.push(Uint8Array.from(bytes));
  const sized = (kind, length) => head(kind, length >>> 24, (length >>> 16) & 255, (length >>> 8) & 255, length & 255);
  const write = (each) => {
    if (each === null || typeof each === "boolean") head(each === null ? 0xc0 : each ? 0xc3 : 0xc2);
    else if (typeof each === "number" || typeof each === "bigint") {
      const bytes = new DataView(new ArrayBuffer(9));
      bytes.setUint8(0, 0xd3);
      bytes.setBigInt64(1, BigInt(each));
      parts.push(new Uint8Array(bytes.buffer));
    } else if (typeof each === "string") {
      const text = new TextEncoder().encode(each);
      sized(0xdb, text.length);
      parts.push(text);
    } else if (each instanceof Uint8Array) {
      sized(0xc6, each.length);
      parts.push(each);
    } else {
      sized(0xdd, each.length);
      each.forEach(write);
    }
  };
  write(value);
  return parts;
}

export function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (length) => { at += length; if (at > bytes.length) throw new Error("a message is cut off"); return at - length; };
  const raw = (length) => bytes.subarray(take(length), at);
  const text = (length) => new TextDecoder().decode(raw(length));
  const array = (length) => Array.from({ length }, read);
  const size = { 1: () => view.getUint8(take(1)), 2: () => view.getUint16(take(2)), 4: () => view.getUint32(take(4)) };
  function read() {
    const kind = view.getUint8(take(1));
    if (kind < 0x80) return kind;
    if (kind >= 0xe0) return kind - 256;
    if (kind >= 0xa0 && kind < 0xc0) return text(kind & 31);
    if (kind >= 0x90 && kind < 0xa0) return array(kind & 15);
    switch (kind) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return raw(size[1 << (kind - 0xc4)]());
      case 0xcc: case 0xcd: case 0xce: return size[1 << (kind - 0xcc)]();
      case 0xcf: return Number(view.getBigUint64(take(8)));
      case 0xd0: return view.getInt8(take(1));
      case 0xd1: return view.getInt16(take(2));
      case 0xd2: return view.getInt32(take(4));
      case 0xd3: return Number(view.getBigInt64(take(8)));
      case 0xd9: case 0xda: case 0xdb: return text(size[1 << (kind - 0xd9)]());
      case 0xdc: case 0xdd: return array(size[kind === 0xdc ? 2 : 4]());
      default: throw new Error(`a value of the kind ${kind} is not expected`);
    }
  }
  return read();
}
