// The movement of a fish, as the server computes it in `demo/game/arena.rs`. A test compares the constants.

export const WIDTH = 1600;
export const HEIGHT = 900;
export const RADIUS = 22;
export const FOOD_RADIUS = 8;
export const ACCELERATION = 1500;
export const GLIDE = 0.9;
export const DASH = 620;
export const DASH_REST = 45;
export const RAM_TICKS = 9;
export const TICK_SECONDS = 1 / 30;

/** Moves a body `{x, y, vx, vy, heading, rest}` by one tick. */
export function swim(body, { x, y, dash }) {
  body.vx = (body.vx + x * ACCELERATION * TICK_SECONDS) * GLIDE;
  body.vy = (body.vy + y * ACCELERATION * TICK_SECONDS) * GLIDE;
  if (x !== 0 || y !== 0) body.heading = Math.atan2(y, x);
  body.rest = Math.max(0, body.rest - 1);
  if (dash && body.rest === 0) {
    body.vx += Math.cos(body.heading) * DASH;
    body.vy += Math.sin(body.heading) * DASH;
    body.rest = DASH_REST;
  }
  [body.x, body.vx] = bounded(body.x + body.vx * TICK_SECONDS, body.vx, WIDTH);
  [body.y, body.vy] = bounded(body.y + body.vy * TICK_SECONDS, body.vy, HEIGHT);
}

export const isRamming = ({ rest }) => rest + RAM_TICKS > DASH_REST;

function bounded(at, velocity, size) {
  const inside = Math.min(size - RADIUS, Math.max(RADIUS, at));
  return [inside, inside === at ? velocity : velocity * -0.5];
}
