// Dots behind the page that rise with the level of the recording or of the playback, and rest when it
// is silent. None where less motion is asked for. The browser calls no frame while the tab is hidden.

import { at, still } from "./page.js";

const DOTS = 40;
const FRAME = 1000 / 24; // ms
const SCALE = 0.5; // of the canvas: soft edges for a quarter of the work
const ALPHA = 0.13; // text over a dot keeps its contrast

const canvas = at("particles");
const context = canvas.getContext("2d");
const dots = Array.from({ length: DOTS }, () => ({
  x: Math.random(),
  y: Math.random(),
  radius: 3 + 11 * Math.random() ** 2, // CSS pixels
  speed: 0.5 + Math.random(),
}));
let level = 0; // asked for, 0 to 1
let energy = 0; // shown; follows the level slowly
let last = 0; // time of the last frame
let frame = 0; // its request, 0 while at rest

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = getComputedStyle(canvas).color;
  context.globalAlpha = ALPHA;
  for (const { x, y, radius } of dots) {
    context.beginPath();
    context.arc(x * canvas.width, y * canvas.height, radius * SCALE * (1 + energy), 0, 2 * Math.PI);
    context.fill();
  }
}

function move(now) {
  frame = requestAnimationFrame(move);
  const passed = Math.min(now - last, 100);
  if (passed < FRAME) return;
  last = now;
  energy += (level - energy) * 0.15;
  for (const dot of dots) {
    dot.y -= dot.speed * energy * passed * 0.00025;
    if (dot.y < -0.05) [dot.x, dot.y] = [Math.random(), 1.05];
  }
  draw();
  if (level === 0 && energy < 0.01) rest();
}

function rest() {
  cancelAnimationFrame(frame);
  frame = 0;
}

function fit() {
  canvas.hidden = still.matches;
  if (still.matches) return rest();
  canvas.width = innerWidth * SCALE;
  canvas.height = innerHeight * SCALE;
  draw();
}

/** Move the dots by a level from 0 to 1. */
export function stir(value) {
  level = value;
  if (level && !frame && !still.matches) frame = requestAnimationFrame(move);
}

/** Give the dots a CSS colour. */
export function tint(colour) {
  canvas.style.color = colour;
  if (!frame && !still.matches) draw();
}

addEventListener("resize", fit);
still.addEventListener("change", fit);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fit);
fit();
