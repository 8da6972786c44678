// The encoding of the game: binary, little-endian. The counterpart in the server, with the layout, is `demo/game/wire.rs`.

const INPUT = 1;
const JOIN = 2;
const LEAVE = 3;
const SCALE = 16;
const ANGLE_SCALE = 10_000;
const INPUT_SCALE = 1_000;

/** The data of an input's publication. */
export function encodeInput({ number, x, y, dash }) {
  const view = new DataView(new ArrayBuffer(10));
  view.setUint8(0, INPUT);
  view.setUint32(1, number, true);
  view.setInt16(5, Math.round(x * INPUT_SCALE), true);
  view.setInt16(7, Math.round(y * INPUT_SCALE), true);
  view.setUint8(9, dash ? 1 : 0);
  return new Uint8Array(view.buffer);
}

export const encodeJoin = (name) => new Uint8Array([JOIN, ...new TextEncoder().encode(name)]);
export const encodeLeave = () => new Uint8Array([LEAVE]);

/** A snapshot `{tick, fish: Map(id -> {id, x, y, vx, vy, heading, rest, score, acknowledged}), food: [{x, y}], names?}`. */
export function decodeSnapshot(bytes) {
  const reader = new Reader(bytes);
  const tick = reader.u32();
  const fish = new Map(reader.list(() => {
    const id = reader.u32();
    const [x, y, vx, vy] = [reader.i16(), reader.i16(), reader.i16(), reader.i16()].map((value) => value / SCALE);
    const [heading, rest, score, acknowledged] = [reader.i16() / ANGLE_SCALE, reader.u8(), reader.u16(), reader.u32()];
    return [id, { id, x, y, vx, vy, heading, rest, score, acknowledged }];
  }));
  const food = reader.list(() => ({ x: reader.u16(), y: reader.u16() }));
  if (reader.isAtEnd) return { tick, fish, food };
  const names = reader.list(() => ({ id: reader.u32(), client: reader.uuid(), name: reader.text(reader.u8()) }));
  return { tick, fish, food, names };
}

class Reader {
  #bytes;
  #view;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get isAtEnd() { return this.#at === this.#bytes.length; }

  u8() { return this.#view.getUint8(this.#skip(1)); }
  u16() { return this.#view.getUint16(this.#skip(2), true); }
  i16() { return this.#view.getInt16(this.#skip(2), true); }
  u32() { return this.#view.getUint32(this.#skip(4), true); }

  /** As many items as the next byte says. */
  list(item) { return Array.from({ length: this.u8() }, item); }

  text(length) { return new TextDecoder().decode(this.#take(length)); }

  /** A client id as the SDK has it, or null if all bytes are zero. */
  uuid() {
    const bytes = this.#take(16);
    if (bytes.every((byte) => byte === 0)) return null;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  }

  #take(length) {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  #skip(length) {
    this.#at += length;
    return this.#at - length;
  }
}
