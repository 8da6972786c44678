// The encoding of the game. The counterpart in the server is `demo/game/wire.rs`.

const SCALE = 16;

/** The data of an input's publication. */
export function encodeInput({ number, x, y, dash }) {
  return [number, Math.round(x * 1000) / 1000, Math.round(y * 1000) / 1000, dash ? 1 : 0];
}

export const encodeJoin = (name) => ({ join: name });
export const encodeLeave = () => ({ leave: true });

/** A snapshot `{tick, fish: Map(id -> {id, x, y, vx, vy, heading, rest, score, acknowledged}), food: [{x, y}], names?}`. */
export function decodeSnapshot({ t, p, f, n }) {
  const fish = new Map(p.map(([id, x, y, vx, vy, heading, rest, score, acknowledged]) => [id, {
    id, x: x / SCALE, y: y / SCALE, vx: vx / SCALE, vy: vy / SCALE, heading: heading / 100, rest, score, acknowledged,
  }]));
  const food = [];
  for (let at = 0; at < f.length; at += 2) food.push({ x: f[at], y: f[at + 1] });
  return { tick: t, fish, food, names: n?.map(([id, name, client]) => ({ id, name, client })) };
}
