// The page: takes a clip from a file or the microphone, sends it to the server, and passes the answer on.
// answer.js shows answers, wave.js shows and plays the clip, particles.js moves the background.

import { showAnswer, showAnalysing, showNothing, showTimeline, showWait, terms } from "./answer.js";
import { at, element, percent } from "./page.js";
import { stir } from "./particles.js";
import * as wave from "./wave.js";

const MAX_RECORDING = 60; // seconds
const MAX_REFERENCES = 3;
const LONG = 8; // seconds; a longer clip is also analysed window by window

let maxBytes = 20e6;
let emotions = []; // the classes of the model
let references = []; // neutral clips of the same speaker
let current; // the clip on the page and its name
let asking; // AbortController of the request under way
let recorder; // MediaRecorder while recording

function showError(message) {
  at("error").textContent = message;
}

// --- requests ---

async function post(address, form, signal) {
  const response = await fetch(address, { method: "POST", body: form, signal });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? answer.title);
  return answer;
}

function explain(error) {
  const lost = error instanceof TypeError || error instanceof SyntaxError;
  return lost ? "The server does not answer. Is it still running?" : error.message;
}

function formOf(clip, name) {
  const form = new FormData();
  form.append("file", clip, name);
  return form;
}

async function analyse(clip, name) {
  showError("");
  asking?.abort();
  const size = [clip, ...references].reduce((sum, file) => sum + file.size, 0);
  if (size > maxBytes) {
    showNothing("No answer for this clip.", emotions);
    const extra = references.length ? " with the neutral clips" : "";
    return showError(`${name}: ${(size / 1e6).toFixed(0)} MB${extra}; at most ${maxBytes / 1e6} MB can be sent.`);
  }
  if (current?.clip !== clip) wave.show(clip, name);
  current = { clip, name };

  const mine = (asking = new AbortController());
  showAnalysing();
  at("result").setAttribute("aria-busy", "true");
  try {
    const form = formOf(clip, name);
    for (const reference of references) form.append("reference", reference, reference.name);
    const answer = await post("predict", form, mine.signal);
    showAnswer(answer, references.length);
    if (answer.quality?.duration_s > LONG) await analyseWindows(clip, name, mine.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    showNothing("No answer for this clip.", emotions);
    showError(explain(error));
  } finally {
    if (mine === asking) at("result").removeAttribute("aria-busy");
  }
}

async function analyseWindows(clip, name, signal) {
  at("result").removeAttribute("aria-busy");
  showWait("Analysing window by window…");
  try {
    showTimeline(await post("predict?timeline=1", formOf(clip, name), signal));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    showWait("");
    showError(`The clip could not be analysed window by window: ${explain(error)}`);
  }
}

// --- files ---

at("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) analyse(file, file.name);
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
  if (file) analyse(file, file.name);
  else showError("That was not a file. Drop an audio file.");
});

// --- neutral clips of the speaker ---

function setReferences(files) {
  references = files.slice(0, MAX_REFERENCES);
  const names = references.map(({ name }) => name).join(", ");
  const left = files.length - references.length;
  at("referred").textContent = names && `Sent with each clip: ${names}${left ? ` (${left} more left out)` : ""}.`;
  at("forget").hidden = !references.length;
  if (current) analyse(current.clip, current.name);
}

at("references").addEventListener("change", ({ target }) => {
  if (target.files.length) setReferences([...target.files]);
  target.value = "";
});
at("forget").addEventListener("click", () => {
  setReferences([]);
  at("references").focus(); // the button is gone
});

// --- recording ---

function whyNot(error) {
  if (error.name === "NotAllowedError") return "The microphone is blocked. Allow it for this page, or choose a file.";
  if (error.name === "NotFoundError") return "No microphone was found. Connect one, or choose a file.";
  return `The microphone cannot be used (${error.message}). Choose a file instead.`;
}

/** Call back with the level of the stream, 0 to 1; the function returned ends it. */
function watchLevel(stream, call) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 1024 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    call(Math.min(1, Math.sqrt(loudest)));
  }, 50);
  return () => {
    clearInterval(timer);
    context.close();
    call(0);
  };
}

async function record() {
  showError("");
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    return showError("Recording works at localhost or over HTTPS, in a current browser. Choose a file instead.");
  }
  at("record").disabled = true;
  let stream;
  try {
    // Unprocessed, as the training clips are.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    recorder = new MediaRecorder(stream);
  } catch (error) {
    stream?.getTracks().forEach((track) => track.stop());
    return showError(whyNot(error));
  } finally {
    at("record").disabled = false;
  }

  wave.pause();
  const parts = [];
  const start = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - start) / 1000);
    at("record-hint").textContent = `${seconds} of ${MAX_RECORDING} s`;
    if (seconds >= MAX_RECORDING) recorder?.stop();
  };
  const timer = setInterval(tick, 200);
  const unwatch = watchLevel(stream, (level) => {
    at("level").style.transform = `scaleX(${level})`;
    stir(level);
  });
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    clearInterval(timer);
    unwatch();
    const type = recorder.mimeType;
    recorder = undefined;
    stream.getTracks().forEach((track) => track.stop());
    at("record").classList.remove("on");
    at("record-label").textContent = "Record";
    at("record-hint").textContent = "with the microphone";
    const extension = type.includes("mp4") ? "m4a" : type.includes("ogg") ? "ogg" : "webm";
    analyse(new Blob(parts, { type }), `recording.${extension}`);
  };
  recorder.start();
  at("record").classList.add("on");
  at("record-label").textContent = "Stop";
  tick();
}

at("record").addEventListener("click", () => (recorder ? recorder.stop() : record()));

// --- the model ---

const SCORES = { uar: "UAR", accuracy: "accuracy", macro_f1: "macro F1", weighted_f1: "weighted F1" };
const exact = (share) => `${(100 * share).toFixed(1)}%`;

function introduce({ name, version, created, estimator, classes, n_features, feature_set, headline, metrics, training, abstain_below, licence, limits }) {
  emotions = classes ?? [];
  maxBytes = limits?.max_bytes ?? maxBytes;
  const most = limits?.max_seconds ? ` and ${limits.max_seconds / 60} minutes` : "";
  at("limits").textContent = `, up to ${maxBytes / 1e6} MB${most}`;

  const sentences = [`${name} ${version}, made on ${created}.`];
  if (headline) {
    const { uar, low, high } = headline;
    sentences.push(
      `On unseen speakers it recognises ${percent(uar)} of the clips of each emotion on average`,
      `(UAR; 95% interval ${percent(low)} to ${percent(high)}, chance ${percent(1 / emotions.length)}).`,
    );
  }
  at("model").textContent = sentences.join(" ");

  const { clips, speakers, copies } = training ?? {};
  const number = (n) => n.toLocaleString("en");
  terms(at("facts"), [
    ["Method", estimator],
    ["Features", n_features && `${number(n_features)} numbers of each clip${feature_set ? ` (${feature_set})` : ""}`],
    ["Emotions", emotions.join(", ")],
    ["Trained on", clips && `${number(clips)} clips of ${speakers} speakers${copies ? `, and ${number(copies)} augmented copies of them` : ""}`],
    ["Tested by", headline?.protocol && `${headline.protocol}: every test speaker is unseen in training`],
    ["Not sure", abstain_below && `below a confidence of ${exact(abstain_below)}`],
    ["Licence", licence],
  ]);
  const rows = Object.entries(metrics ?? {}).map(([key, { value, low, high }]) => {
    const score = element("th", "", SCORES[key] ?? key.replaceAll("_", " "));
    score.scope = "row";
    const interval = low === undefined ? "" : `${exact(low)} to ${exact(high)}`;
    return element("tr", "", score, element("td", "", exact(value)), element("td", "", interval));
  });
  at("scores").tBodies[0].replaceChildren(...rows);
  at("scores").hidden = !rows.length;
  at("technical").hidden = false;
}

async function start() {
  try {
    const response = await fetch("model");
    if (!response.ok) throw new Error();
    introduce(await response.json());
  } catch {
    showError("The server does not answer. Is it still running?");
  }
  if (!asking) showNothing("Waiting for a clip.", emotions);
}

start();
