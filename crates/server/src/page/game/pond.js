// Draws the pond on a canvas.

import { DASH_REST, FOOD_RADIUS, HEIGHT, RADIUS, WIDTH, isRamming } from './physics.js';

/** The fish of the logo, which faces to the left in a square of 32. */
const FISH = new Path2D('M2 16c4.500-7.200 13.600-9.200 20.600-3.300L29.600 7c-1.300 3-2 6-2 9s.7 6 2 9l-7-5.700C15.600 25.200 6.500 23.200 2 16z');
const FISH_SCALE = RADIUS * 2.6 / 28;
/** The first of the tints is too close to the colour of the own fish. */
const TINTS = [1, 2, 3, 4, 5, 6, 7];

/** The name of a colour for a player; bots have none. */
export function tintOf({ id, isMe, isBot }) {
  if (isMe) return '--accent';
  return isBot ? '--bot' : `--tint-${TINTS[id % TINTS.length]}`;
}

export class Pond {
  #canvas;
  #context;
  #colours = new Map();
  #camera = { scale: 1, x: 0, y: 0 };

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d');
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#colours.clear());
  }

  /** `view` is that of the netcode, `players` maps ids to {name, isMe, isBot}. */
  draw(view, players, { isGhostShown }) {
    const context = this.#context;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = devicePixelRatio;
    if (this.#canvas.width !== Math.round(width * ratio) || this.#canvas.height !== Math.round(height * ratio)) {
      this.#canvas.width = Math.round(width * ratio);
      this.#canvas.height = Math.round(height * ratio);
    }
    this.#aim(view?.own, width, height);
    const { scale, x, y } = this.#camera;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, -x * ratio * scale, -y * ratio * scale);
    this.#drawWater();
    if (!view) return;
    for (const food of view.food) this.#drawFood(food);
    if (isGhostShown && view.server) this.#drawGhost(view.server);
    for (const fish of view.fish) if (fish !== view.own) this.#drawFish(fish, players.get(fish.id));
    if (view.own) this.#drawFish(view.own, players.get(view.own.id));
    for (const fish of view.fish) this.#drawLabel(fish, players.get(fish.id));
  }

  /** The point of the pond under a pointer. */
  pointAt({ clientX, clientY }) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    const { scale, x, y } = this.#camera;
    return { x: (clientX - left) / scale + x, y: (clientY - top) / scale + y };
  }

  /** The pond covers the canvas, which follows the own fish where it is smaller than the pond. */
  #aim(own, width, height) {
    const scale = Math.max(width / WIDTH, height / HEIGHT);
    const [shownWidth, shownHeight] = [width / scale, height / scale];
    const at = own ?? { x: WIDTH / 2, y: HEIGHT / 2 };
    const clamp = (value, most) => Math.min(Math.max(value, 0), Math.max(0, most));
    this.#camera = {
      scale,
      x: clamp(at.x - shownWidth / 2, WIDTH - shownWidth),
      y: clamp(at.y - shownHeight / 2, HEIGHT - shownHeight),
    };
  }

  #colour(name) {
    if (!this.#colours.has(name)) {
      this.#colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    }
    return this.#colours.get(name);
  }

  #drawWater() {
    const context = this.#context;
    const water = context.createRadialGradient(WIDTH / 2, HEIGHT / 2, 100, WIDTH / 2, HEIGHT / 2, WIDTH * 0.62);
    water.addColorStop(0, this.#colour('--pond'));
    water.addColorStop(1, this.#colour('--pond-deep'));
    context.fillStyle = water;
    context.fillRect(0, 0, WIDTH, HEIGHT);
    context.strokeStyle = this.#colour('--pond-line');
    context.lineWidth = 1.5;
    context.beginPath();
    for (let x = 100; x < WIDTH; x += 100) { context.moveTo(x, 0); context.lineTo(x, HEIGHT); }
    for (let y = 100; y < HEIGHT; y += 100) { context.moveTo(0, y); context.lineTo(WIDTH, y); }
    context.globalAlpha = 0.45;
    context.stroke();
    context.globalAlpha = 1;
  }

  #drawFood({ x, y }) {
    const context = this.#context;
    context.fillStyle = this.#colour('--food');
    context.beginPath();
    context.arc(x, y, FOOD_RADIUS, 0, 7);
    context.fill();
    context.fillStyle = 'rgb(255 255 255 / 55%)';
    context.beginPath();
    context.arc(x - 2.5, y - 2.5, 2.4, 0, 7);
    context.fill();
  }

  #drawFish(fish, player = {}) {
    const context = this.#context;
    const colour = this.#colour(tintOf({ id: fish.id, ...player }));
    if (isRamming(fish)) {
      context.strokeStyle = colour;
      context.lineWidth = 4;
      context.globalAlpha = 0.5;
      context.beginPath();
      context.arc(fish.x, fish.y, RADIUS * 1.6, 0, 7);
      context.stroke();
      context.globalAlpha = 1;
    }
    context.save();
    this.#turnTo(fish);
    context.fillStyle = colour;
    context.fill(FISH);
    context.fillStyle = '#fff';
    context.beginPath();
    context.arc(9, 14.6, 1.7, 0, 7);
    context.fill();
    context.restore();
    if (player.isMe && fish.rest > 0) this.#drawRest(fish);
  }

  #turnTo({ x, y, heading }) {
    const context = this.#context;
    context.translate(x, y);
    context.rotate(heading + Math.PI);
    // The eye stays on the upper side.
    context.scale(FISH_SCALE, Math.cos(heading) > 0 ? -FISH_SCALE : FISH_SCALE);
    context.translate(-16, -16);
  }

  /** The time until the next dash, as an arc. */
  #drawRest({ x, y, rest }) {
    const context = this.#context;
    context.strokeStyle = this.#colour('--accent');
    context.lineWidth = 3;
    context.beginPath();
    context.arc(x, y, RADIUS * 1.9, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * (1 - rest / DASH_REST));
    context.stroke();
  }

  #drawGhost(fish) {
    const context = this.#context;
    context.save();
    this.#turnTo(fish);
    context.strokeStyle = this.#colour('--label');
    context.lineWidth = 1.1;
    context.setLineDash([2, 1.6]);
    context.stroke(FISH);
    context.restore();
  }

  #drawLabel({ x, y, score }, player = {}) {
    const context = this.#context;
    // At least 11 pixels high, also on a phone.
    const size = Math.max(17, 11 / this.#camera.scale);
    context.font = `${player.isMe ? 680 : 500} ${size}px system-ui, sans-serif`;
    context.textAlign = 'center';
    context.fillStyle = this.#colour('--label');
    context.globalAlpha = player.isMe ? 1 : 0.75;
    context.fillText(`${player.name ?? ''} ${score}`, x, y - RADIUS * (player.isMe ? 2.1 : 1.5));
    context.globalAlpha = 1;
  }
}
