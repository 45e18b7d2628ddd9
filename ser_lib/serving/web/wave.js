// The clip on the page: waveform, playback, position. Where the browser cannot decode the clip there is
// no waveform, and the browser's own player stands in for it.

import { at, clock } from "./page.js";
import { stir } from "./particles.js";

const RATE = 8000; // Hz; enough to draw, and ten minutes stay small in memory
const PEAKS = 1200;

const audio = at("audio");
const canvas = at("waveform");
let peaks; // height of each part of the clip, 0 to 1, or undefined without a waveform
let duration = 0; // seconds
let shown = 0; // number of the clip on the page
let decoding = false;
let drawn = -1; // bars drawn as played
let frame = 0; // request of the next one while playing

/** Put a clip on the page; its waveform follows when it is decoded. */
export async function show(clip, name) {
  const mine = ++shown;
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(clip);
  [peaks, duration] = [undefined, 0];
  at("name").textContent = name;
  at("clip").hidden = false;
  clear();
  decoding = true;
  arrange();
  try {
    const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await clip.arrayBuffer());
    if (mine !== shown) return;
    ({ duration } = decoded);
    peaks = measure(decoded);
  } catch {
    if (mine !== shown) return;
  }
  decoding = false;
  arrange();
}

function measure(decoded) {
  const heights = new Float32Array(PEAKS);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const samples = decoded.getChannelData(channel);
    samples.forEach((sample, i) => {
      const part = Math.floor((i * PEAKS) / samples.length);
      heights[part] = Math.max(heights[part], Math.abs(sample));
    });
  }
  return heights.map((peak) => Math.min(1, Math.sqrt(peak))); // so that quiet speech is seen
}

function arrange() {
  for (const id of ["wave", "play", "head"]) at(id).hidden = !peaks;
  audio.hidden = decoding || Boolean(peaks ?? audio.error);
  at("seek").max = duration;
  drawn = -1;
  position();
}

/** Draw the waveform, if another bar has been played or if forced. */
function draw(anew = true) {
  if (!peaks || !canvas.clientWidth) return;
  const { clientWidth, clientHeight } = canvas;
  const bars = Math.floor(clientWidth / 4);
  const played = Math.round((bars * audio.currentTime) / duration);
  if (!anew && played === drawn) return;
  drawn = played;
  const scale = devicePixelRatio;
  canvas.width = clientWidth * scale;
  canvas.height = clientHeight * scale;
  const style = getComputedStyle(canvas);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  for (let bar = 0; bar < bars; bar++) {
    const [from, to] = [bar, bar + 1].map((b) => Math.floor((b * PEAKS) / bars));
    const height = Math.max(2, Math.max(...peaks.subarray(from, to)) * clientHeight);
    context.fillStyle = style.getPropertyValue(bar < played ? "--accent" : "--wave");
    context.fillRect((bar * clientWidth) / bars, (clientHeight - height) / 2, 2.5, height);
  }
}

function position() {
  draw(false);
  if (!peaks) return (at("time").textContent = audio.error ? "cannot be played here" : "");
  const seconds = Math.min(audio.currentTime, duration);
  const short = duration < 10;
  const times = [seconds, duration].map((s) => (short ? `${s.toFixed(1)} s` : clock(Math.floor(s))));
  at("seek").value = seconds;
  at("seek").setAttribute("aria-valuetext", times.join(" of "));
  const time = times.join(" / ");
  if (at("time").textContent !== time) at("time").textContent = time;
  at("head").style.left = `${(100 * seconds) / duration}%`;
}

function follow() {
  cancelAnimationFrame(frame);
  position();
  const playing = !audio.paused && !audio.ended;
  at("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  stir(playing && peaks ? peaks[Math.floor((audio.currentTime / duration) * PEAKS)] || 0 : 0);
  if (playing) frame = requestAnimationFrame(follow);
}

/** Go to a second of the clip. */
export function seek(seconds) {
  audio.currentTime = seconds;
  position();
}

/** Shade a part of a clip of so many seconds. */
export function mark(start, end, length) {
  at("band").style.left = `${(100 * start) / length}%`;
  at("band").style.width = `${(100 * (end - start)) / length}%`;
  at("band").hidden = false;
}

/** Shade nothing. */
export function clear() {
  at("band").hidden = true;
}

/** Stop the playback. */
export const pause = () => audio.pause();

at("play").addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
at("seek").addEventListener("input", ({ target }) => seek(Number(target.value)));
audio.addEventListener("play", follow);
audio.addEventListener("pause", follow);
audio.addEventListener("seeked", position);
audio.addEventListener("error", arrange);
new ResizeObserver(() => draw()).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
