// Shows an answer: the emotion, its bars, the recording, the windows of a long clip, downloads.

import { at, clock, colourOf, element, percent, still } from "./page.js";
import { tint } from "./particles.js";
import * as wave from "./wave.js";

const FACES = {
  neutral: "😐", calm: "😌", happy: "😊", sad: "😢", angry: "😠", fearful: "😨", disgust: "🤢", surprised: "😲",
};
const UNSURE = "🤔";
const SILENT = "🔇";

let answer; // of the whole clip
let timeline; // of its windows, if the clip is long

const faceOf = (emotion) => FACES[emotion] ?? "🗣️";
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, ".");
const or = (words) => words.join(", ").replace(/, ([^,]*)$/, " or $1");
const span = ({ start_s, end_s }) => `${clock(start_s)} to ${clock(end_s)}`;

// --- one answer: of the clip or of a window ---

function panelOf(className, face, ...lines) {
  const picture = element("span", "face", face);
  picture.setAttribute("aria-hidden", "true");
  return element("div", className, picture, element("div", "", ...lines));
}

function showVerdict({ emotion, confidence, prediction_set, abstained, reason, silent, quality, intensity, warnings, references }) {
  const others = (prediction_set ?? []).filter((other) => other !== emotion);
  const word = element("p", "emotion", emotion ?? "");
  const from = quality?.duration_s ? `, from ${quality.duration_s.toFixed(1)} s of audio` : "";
  const lines = [];
  let face = faceOf(emotion);
  if (!emotion && !silent) {
    [face, word.textContent] = [SILENT, "No speech found"];
    lines.push(element("p", "", "Record a sentence or two, or choose another file."));
  } else if (silent) {
    [face, word.textContent] = [SILENT, "Silence"];
    lines.push(element("p", "", "No speech in this window."));
  } else if (abstained) {
    face = UNSURE;
    const guess = element("b", "emotion", emotion);
    word.className = "unsure";
    word.textContent = "Not sure";
    lines.push(element("p", "", "Perhaps ", guess, ` (${percent(confidence)})${others.length ? `, or ${or(others)}` : ""}${from}.`));
    if (reason) lines.push(element("p", "", sentence(reason)));
  } else {
    lines.push(element("p", "", `Fairly sure (${percent(confidence)})${from}.`));
    if (others.length) lines.push(element("p", "", `It may also be ${or(others)}.`));
  }
  if (intensity) {
    const [kind, share] = Object.entries(intensity).sort((a, b) => b[1] - a[1])[0];
    lines.push(element("p", "", `Spoken with ${kind} intensity (${percent(share)}).`));
  }
  if (references) lines.push(element("p", "", `Compared with ${references} neutral clip${references > 1 ? "s" : ""} of the speaker.`));

  const panel = panelOf(abstained || silent ? "panel doubtful" : "panel", face, word, ...lines);
  const colour = abstained || silent ? "var(--other)" : colourOf(emotion);
  panel.style.setProperty("--colour", colour);
  tint(colour);
  at("verdict").replaceChildren(panel);
  if (warnings?.length) {
    const list = element("ul", "warnings", ...warnings.map((warning) => element("li", "", sentence(warning))));
    at("verdict").append(list);
  }
}

function showBars(probabilities, values = true) {
  const bars = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).map(([emotion, p]) => {
    const fill = element("div", "fill");
    const track = element("div", "track", fill);
    track.setAttribute("aria-hidden", "true");
    const value = element("span", "value", values ? percent(p) : "");
    const bar = element("li", "", element("span", "label", emotion), track, value);
    bar.style.setProperty("--colour", colourOf(emotion));
    return [bar, fill, p];
  });
  at("bars").classList.toggle("empty", !values);
  at("bars").replaceChildren(...bars.map(([bar]) => bar));
  at("bars").getBoundingClientRect(); // lays out at width 0, so that the bars grow
  for (const [, fill, p] of bars) fill.style.width = `${100 * p}%`;
}

function showHint(message) {
  at("verdict").replaceChildren(panelOf("panel idle", "👂", element("p", "", message)));
}

/** Show a message and an empty bar for each emotion. */
export function showNothing(message, emotions) {
  answer = timeline = undefined;
  showHint(message);
  showBars(Object.fromEntries(emotions.map((emotion) => [emotion, 0])), false);
  at("recording-title").textContent = "A good clip";
  at("tips").hidden = false;
  at("quality").hidden = at("downloads").hidden = true;
  clearWindows();
}

/** A clip is being analysed: the last bars stay, pale, until its answer is there. */
export function showAnalysing() {
  showHint("Analysing…");
  at("downloads").hidden = true;
  clearWindows();
}

/** Show the answer for a whole clip that was sent with so many neutral clips. */
export function showAnswer(received, references) {
  answer = received;
  timeline = undefined;
  showWhole();
  showQuality(answer.quality ?? {});
  at("recording-title").textContent = "The recording";
  at("tips").hidden = true;
  at("quality").hidden = at("downloads").hidden = false;
  at("result").scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });

  function showWhole() {
    showVerdict({ ...received, references });
    showBars(received.probabilities);
    at("result-title").textContent = "Emotion";
    at("whole").hidden = true;
    wave.clear();
  }
  at("whole").onclick = () => {
    showWhole();
    const chosen = at("strip").querySelector(":checked");
    if (chosen) chosen.checked = false;
    at("strip").querySelector("input").focus();
  };
}

// --- the recording ---

/** Fill a <dl> with pairs of term and text; empty ones are left out. */
export function terms(list, pairs) {
  const known = pairs.filter(([, text]) => text);
  list.replaceChildren(...known.flatMap(([term, text]) => [element("dt", "", term), element("dd", "", text)]));
}

function showQuality({ duration_s, sample_rate, channels, loudness_db, clipped, silence, bandwidth_hz, distance }) {
  const has = (value, text) => (Number.isFinite(value) ? text(value) : "");
  terms(at("quality"), [
    ["Duration", has(duration_s, (s) => `${s.toFixed(1)} s`)],
    ["Sample rate", has(sample_rate, (rate) => `${rate / 1000} kHz`)],
    ["Channels", has(channels, (n) => ({ 1: "1, mono", 2: "2, stereo" })[n] ?? String(n))],
    ["Loudness", has(loudness_db, (db) => `${db.toFixed(0).replace("-", "−")} dB while speaking`)],
    ["Clipping", has(clipped, (share) => (share ? `${percent(share)} of the samples` : "none"))],
    ["Silence", has(silence, (share) => `${percent(share)} of the clip`)],
    ["Bandwidth", has(bandwidth_hz, (hz) => `up to ${(hz / 1000).toFixed(1)} kHz`)],
    ["Similarity", has(distance, (d) => `${d > 1 ? "unlike" : "like"} the training clips (${d.toFixed(1)}; over 1 is unusual)`)],
  ]);
}

// --- windows ---

/** Say that windows are being analysed, or why there are none. */
export function showWait(message) {
  at("windows-hint").textContent = message;
}

function clearWindows() {
  at("strip").hidden = at("windows").hidden = at("whole").hidden = true;
  at("strip").querySelectorAll("label").forEach((label) => label.remove());
  at("legend").replaceChildren();
  at("result-title").textContent = "Emotion";
  showWait("");
  wave.clear();
}

function showWindow(part) {
  showVerdict(part);
  showBars(part.probabilities ?? Object.fromEntries(Object.keys(answer.probabilities).map((emotion) => [emotion, 0])), !part.silent);
  at("result-title").textContent = `From ${span(part)}`;
  at("whole").hidden = false;
  wave.mark(part.start_s, part.end_s, timeline.duration_s);
  wave.seek(part.start_s);
}

const kindOf = ({ emotion, abstained, silent }) => (silent ? "silent" : abstained ? "not sure" : emotion);

/** A cell of the strip: a radio button, so that arrow keys go from window to window. */
function cell(part, length) {
  const { emotion, confidence, abstained, silent } = part;
  const radio = element("input");
  Object.assign(radio, { type: "radio", name: "window", onchange: () => showWindow(part) });
  const summary = silent ? "silent" : `${emotion}, ${percent(confidence)}${abstained ? ", not sure" : ""}`;
  radio.setAttribute("aria-label", `${span(part)}: ${summary}`);
  const face = element("span", "", silent ? "" : abstained ? "?" : faceOf(emotion));
  face.setAttribute("aria-hidden", "true");
  const label = element("label", kindOf(part).replace(" ", "-"), radio, face);
  label.title = `${span(part)}: ${summary}`;
  if (!silent) label.style.setProperty("--colour", colourOf(emotion));
  label.style.flexGrow = length;
  return label;
}

function row(part, radio) {
  const link = element("button", "link", span(part));
  Object.assign(link, { type: "button", onclick: () => radio.click() });
  const { emotion, confidence, abstained, silent } = part;
  const time = element("th", "", link);
  time.scope = "row";
  const summary = silent ? "silent" : `${emotion}${abstained ? " (not sure)" : ""}`;
  return element("tr", "", time, element("td", "", summary), element("td", "", silent ? "" : percent(confidence)));
}

/** Show the windows of a long clip: a strip in time, the count of each emotion, and a table. */
export function showTimeline(received) {
  clearWindows();
  timeline = received;
  const { windows, duration_s, window_s } = timeline;
  // Windows overlap: a cell reaches half-way to the middles of its neighbours.
  const middles = windows.map(({ start_s, end_s }) => (start_s + end_s) / 2);
  const edges = [0, ...middles.slice(1).map((middle, i) => (middle + middles[i]) / 2), duration_s];
  const cells = windows.map((part, i) => cell(part, edges[i + 1] - edges[i]));
  at("strip").append(...cells);
  at("strip").hidden = at("windows").hidden = false;
  at("rows").replaceChildren(...windows.map((part, i) => row(part, cells[i].firstChild)));
  const news = (timeline.warnings ?? []).filter((warning) => !answer.warnings?.includes(warning)).map(sentence);
  showWait([`${windows.length} windows of ${window_s} s. Choose one to see its answer.`, ...news].join(" "));

  const counts = new Map();
  for (const part of windows) counts.set(kindOf(part), (counts.get(kindOf(part)) ?? 0) + 1);
  const doubtful = ([kind]) => kind === "not sure" || kind === "silent";
  const order = (a, b) => doubtful(a) - doubtful(b) || b[1] - a[1];
  const entries = [...counts].sort(order).map(([kind, number]) => {
    const swatch = element("i", kind.replace(" ", "-"));
    swatch.style.setProperty("--colour", kind === "not sure" ? "var(--other)" : colourOf(kind));
    return element("li", "", swatch, `${kind} ${number}`);
  });
  at("legend").replaceChildren(...entries);
}

// --- downloads ---

function save(text, type, extension) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = answer.file.replace(/\.[^.]*$/, "") + extension;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** One row for each window, or one for the clip, with the same columns. */
function csv() {
  const emotions = Object.keys(answer.probabilities);
  const rows = timeline?.windows ?? [{ ...answer, start_s: 0, end_s: answer.quality?.duration_s }];
  const columns = ["file", "start_s", "end_s", "emotion", "confidence", "abstained", "silent", ...emotions];
  const lines = rows.map(({ probabilities, ...others }) => {
    const values = { silent: false, ...others, file: answer.file, ...probabilities };
    return columns.map((column) => values[column]);
  });
  const quote = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value ?? "");
  return [columns, ...lines].map((line) => `${line.map(quote).join(",")}\r\n`).join("");
}

at("json").onclick = () => {
  const whole = timeline ? { ...answer, timeline } : answer;
  save(`${JSON.stringify(whole, null, 2)}\n`, "application/json", ".json");
};
at("csv").onclick = () => save(csv(), "text/csv", ".csv");
