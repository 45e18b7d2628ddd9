"use strict";

const MAX_RECORDING = 60; // seconds
const at = (id) => document.getElementById(id);

let maxBytes = 20e6;
let emotions = []; // that the model knows
let asking; // AbortController of the request under way
let recorder; // MediaRecorder while recording

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function percent(share) {
  if (share > 0.99 && share < 1) return ">99%";
  if (share < 0.01 && share > 0) return "<1%";
  return `${Math.round(100 * share)}%`;
}

function showError(message) {
  at("error").textContent = message;
}

// --- result ---

function showBars(probabilities, values = true) {
  const bars = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).map(([emotion, p]) => {
    const bar = element("li", "");
    const fill = element("div", "fill");
    const track = element("div", "track");
    track.setAttribute("aria-hidden", "true");
    track.append(fill);
    bar.style.setProperty("--colour", `var(--${CSS.escape(emotion)}, var(--other))`);
    bar.append(element("span", "label", emotion), track, element("span", "value", values ? percent(p) : ""));
    return [bar, fill, p];
  });
  at("bars").classList.toggle("empty", !values);
  at("bars").replaceChildren(...bars.map(([bar]) => bar));
  at("bars").getBoundingClientRect(); // lays out at width 0, so that the bars grow
  for (const [, fill, p] of bars) fill.style.width = `${100 * p}%`;
}

function showResult({ emotion, confidence, probabilities, prediction_set, abstained, intensity, duration_s }) {
  const heard = element("p", "emotion", emotion);
  heard.style.setProperty("--colour", `var(--${CSS.escape(emotion)}, var(--other))`);
  const said = [`${abstained ? "Not sure" : "Fairly sure"} (${percent(confidence)}), from ${duration_s.toFixed(1)} s of audio.`];
  if (abstained) said.push(`It may be ${prediction_set.join(", ").replace(/, ([^,]*)$/, " or $1")}.`);
  if (intensity) said.push(`Spoken with ${intensity.strong > 0.5 ? "strong" : "normal"} intensity (${percent(Math.max(...Object.values(intensity)))}).`);
  at("verdict").replaceChildren(heard, ...said.map((line) => element("p", "sure", line)));
  showBars(probabilities);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  at("result").scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
}

function showNothing(message) {
  at("verdict").replaceChildren(element("p", "hint", message));
  showBars(Object.fromEntries(emotions.map((emotion) => [emotion, 0])), false);
}

async function hear(clip, name) {
  showError("");
  asking?.abort();
  if (clip.size > maxBytes) {
    showNothing("No result for this clip.");
    return showError(`${name}: ${(clip.size / 1e6).toFixed(0)} MB; at most ${maxBytes / 1e6} MB can be sent.`);
  }
  URL.revokeObjectURL(at("player").src);
  at("player").src = URL.createObjectURL(clip);
  at("name").textContent = name;
  at("clip").hidden = false;

  const mine = (asking = new AbortController());
  at("result").setAttribute("aria-busy", "true");
  at("verdict").replaceChildren(element("p", "hint", "Listening…"));
  const form = new FormData();
  form.append("file", clip, name);
  try {
    const response = await fetch("predict", { method: "POST", body: form, signal: mine.signal });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    showResult(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    const lost = error instanceof TypeError || error instanceof SyntaxError;
    showNothing("No result for this clip.");
    showError(lost ? "The server does not answer. Is it still running?" : error.message);
  } finally {
    if (mine === asking) at("result").removeAttribute("aria-busy");
  }
}

// --- file and drop ---

at("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) hear(file, file.name);
  target.value = ""; // the same file can be chosen again
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) hear(file, file.name);
  else showError("That was not a file. Drop an audio file.");
});

// --- recording ---

function whyNot(error) {
  if (error.name === "NotAllowedError") return "The microphone is blocked. Allow it for this page, or choose a file.";
  if (error.name === "NotFoundError") return "No microphone was found. Connect one, or choose a file.";
  return `The microphone cannot be used (${error.message}). Choose a file instead.`;
}

async function record() {
  showError("");
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    return showError("Recording works at localhost or over HTTPS, in a current browser. Choose a file instead.");
  }
  at("record").disabled = true;
  let stream;
  try {
    // The training clips are unprocessed: loudness and noise stay as they are.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    recorder = new MediaRecorder(stream);
  } catch (error) {
    stream?.getTracks().forEach((track) => track.stop());
    return showError(whyNot(error));
  } finally {
    at("record").disabled = false;
  }

  const parts = [];
  const start = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - start) / 1000);
    at("record-label").textContent = `Stop (${seconds} of ${MAX_RECORDING} s)`;
    if (seconds >= MAX_RECORDING) recorder?.stop();
  };
  const timer = setInterval(tick, 200);
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    clearInterval(timer);
    const type = recorder.mimeType;
    recorder = undefined;
    stream.getTracks().forEach((track) => track.stop());
    at("record").classList.remove("on");
    at("record-label").textContent = "Record";
    hear(new Blob(parts, { type }), type.includes("mp4") ? "recording.m4a" : "recording.webm");
  };
  recorder.start();
  at("record").classList.add("on");
  tick();
}

at("record").addEventListener("click", () => (recorder ? recorder.stop() : record()));

// --- model ---

async function introduce() {
  try {
    const { model, max_bytes } = await (await fetch("health")).json();
    maxBytes = max_bytes;
    emotions = model.classes;
    const parts = [`${model.name} ${model.version}, made on ${model.created}.`];
    if (model.headline) {
      const { uar, low, high } = model.headline;
      const chance = percent(1 / emotions.length);
      parts.push(
        `On speakers it had never heard, it found ${percent(uar)} of the clips of each emotion on average`,
        `(UAR; 95% interval ${percent(low)} to ${percent(high)}, chance ${chance}).`,
      );
    }
    at("model").replaceChildren(element("strong", "", "Model."), ` ${parts.join(" ")}`);
    if (!asking) showNothing("Waiting for a clip.");
  } catch {
    showError("The server does not answer. Is it still running?");
  }
}

introduce();
