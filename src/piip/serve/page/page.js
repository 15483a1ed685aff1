// The page: a photo in, what the model finds in it drawn, with a threshold that acts at once.

import { View, draw, labelPicture, maskPicture } from "./view.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), context = canvas.getContext("2d"), view = new View();
const LEAST = 0.05; // score from which objects are asked for; the slider chooses among them
const state = { model: null, file: null, image: null, answer: null, labels: null, off: new Set(), asked: 0 };

// ---- asking

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function learnModel() {
  const answer = await fetch("model", { headers: headers() });
  $("token-form").hidden = answer.status !== 401;
  if (!answer.ok) return say(answer.status === 401 ? "Give the server's token first." : "The server does not answer.", true);
  state.model = await answer.json();
  const { name, task, classes } = state.model;
  $("model").textContent = `${name} · ${task} · ${classes.length} ${classes.length === 1 ? "class" : "classes"}`;
  document.title = `piip · ${name}`;
  if (task === "detection") $("opacity").value = 35; // the object under its mask is what one wants to see
  say("Ready.");
}

async function open(file) {
  if (!file) return;
  if (!state.model) await learnModel();
  if (!state.model) return;
  const asked = ++state.asked;
  try { // the page shows the pixels that the model sees: upright, as the browser turns them too
    state.image = await createImageBitmap(file);
  } catch { state.image = null; }
  Object.assign(state, { file, answer: null, labels: null });
  $("empty").hidden = true;
  fit();
  await ask(file, asked);
}

async function ask(file, asked) {
  say("Looking …");
  const query = new URLSearchParams({ conf: LEAST, mask: state.model.task === "segmentation" });
  try {
    const answer = await fetch(`predict?${query}`, { method: "POST", body: file, headers: { ...headers(), "Content-Type": file.type || "application/octet-stream" } });
    if (asked !== state.asked) return;
    const content = await answer.json();
    if (!answer.ok) {
      if (answer.status === 401) $("token-form").hidden = false;
      const wait = answer.status === 429 ? " Try again in a moment." : "";
      return say(typeof content.detail === "string" ? content.detail + wait : `Refused (${answer.status}).`, true);
    }
    await take(content);
  } catch (error) {
    if (asked === state.asked) say(`The server does not answer (${error.message}).`, true);
  }
}

async function take(content) {
  const labels = content.mask_png ? await readLabels(content) : null;
  Object.assign(state, { answer: content, labels });
  for (const object of content.objects ?? []) {
    object.colour = state.model.colours[object.label];
    if (object.segmentation) object.mask = maskPicture(object, object.colour, content.width, content.height);
  }
  $("threshold-row").hidden = !content.objects;
  $("auto-row").hidden = !state.model.thresholds;
  $("show").hidden = !content.objects;
  $("show-masks").parentElement.hidden = !content.objects?.some((object) => object.mask);
  $("opacity-row").hidden = !(labels || content.objects?.some((object) => object.mask));
  $("downloads").hidden = false;
  if (!state.image) say("This browser cannot show this kind of file.", true);
  listClasses();
  refresh();
}

async function readLabels({ mask_png: png, width, height }) {
  const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const scratch = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  scratch.drawImage(picture, 0, 0);
  const pixels = scratch.getImageData(0, 0, width, height).data, labels = new Uint16Array(width * height);
  for (let i = 0; i < labels.length; i++) labels[i] = pixels[4 * i] | (pixels[4 * i + 1] << 8);
  return labels;
}

// ---- showing

function shown() {
  const best = $("auto").checked ? state.model.thresholds : null, slider = Number($("threshold").value);
  const counts = ({ score, label }) => score >= (best?.[label] ?? slider) && !state.off.has(label);
  return (state.answer?.objects ?? []).filter(counts);
}

function listClasses() {
  const box = $("classes"), { objects, classes, top } = state.answer;
  box.replaceChildren(box.querySelector("legend"));
  box.hidden = false;
  if (top) {
    for (const { label, name, probability } of top) box.append(row(label, name, `${(100 * probability).toFixed(1)}%`, probability));
    return;
  }
  const found = classes ?? [...new Set(objects.map((object) => object.label))].sort((a, b) => a - b).map((label) => ({ label, name: state.model.classes[label] }));
  for (const { label, name, share } of found) box.append(row(label, name, share === undefined ? "" : `${(100 * share).toFixed(1)}%`));
  box.hidden = found.length === 0;
}

function row(label, name, count, probability) {
  const line = document.createElement("label");
  const part = (kind, text = "") => Object.assign(document.createElement("span"), { className: kind, textContent: text });
  if (probability === undefined) {
    const tick = Object.assign(document.createElement("input"), { type: "checkbox", checked: !state.off.has(label) });
    tick.addEventListener("change", () => { tick.checked ? state.off.delete(label) : state.off.add(label); refresh(); });
    const swatch = part("swatch");
    swatch.style.background = `rgb(${state.model.colours[label].join(",")})`;
    line.append(tick, swatch);
  }
  line.append(part("name", name));
  if (probability !== undefined) {
    const bar = part("bar"), filled = document.createElement("span");
    filled.style.width = `${100 * probability}%`;
    bar.append(filled);
    line.append(bar);
  }
  const number = part("count", count);
  number.dataset.label = label;
  line.append(number);
  return line;
}

let labelled = null;
function scene() {
  const { answer, labels } = state;
  if (labels) {
    const on = new Set(state.model.classes.keys());
    for (const label of state.off) on.delete(label);
    const key = [...on].join();
    if (labelled?.labels !== labels || labelled.key !== key) labelled = { labels, key, picture: labelPicture(labels, answer.width, answer.height, state.model.colours, on) };
  }
  const image = state.image;
  return {
    image, width: answer?.width ?? image?.width, height: answer?.height ?? image?.height, objects: shown(),
    labels: labels && labelled.picture, opacity: Number($("opacity").value) / 100,
    show: { boxes: $("show-boxes").checked, masks: $("show-masks").checked, labels: $("show-labels").checked },
  };
}

function refresh() {
  $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
  $("opacity-value").textContent = `${$("opacity").value}%`;
  const { answer } = state;
  if (answer?.objects) {
    const objects = shown();
    for (const number of $("classes").querySelectorAll(".count")) number.textContent = objects.filter((object) => object.label === Number(number.dataset.label)).length;
    say(`${objects.length || "No"} ${objects.length === 1 ? "object" : "objects"} · ${milliseconds(answer)}`);
  } else if (answer) {
    say(`${answer.top ? answer.top[0].name : `${answer.classes.length} classes`} · ${milliseconds(answer)}`);
  }
  requestAnimationFrame(() => draw(context, scene(), view, devicePixelRatio));
}

const milliseconds = (answer) => `${Math.round(answer.milliseconds.model)} ms`;

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function fit() {
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  const { width: across, height: down } = scene();
  if (across) view.fit(across, down, canvas.width, canvas.height);
  refresh();
}

// ---- keeping

function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const stem = () => (state.file?.name || "photo").replace(/\.[^.]*$/, "");

function saveJson() {
  const { mask_png: _, ...content } = state.answer;
  if (content.objects) content.objects = shown().map(({ mask, colour, ...object }) => object);
  download(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }), `${stem()}.json`);
}

function savePicture() {
  const now = scene(), picture = document.createElement("canvas"), whole = new View();
  Object.assign(picture, { width: now.width, height: now.height });
  draw(picture.getContext("2d"), now, whole, Math.max(1, Math.max(now.width, now.height) / 1200));
  picture.toBlob((blob) => download(blob, `${stem()}-found.png`), "image/png");
}

// ---- hands

let stream = null;
async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) { return say(`No camera (${error.message}).`, true); }
  $("video").srcObject = stream;
  $("live").hidden = false;
  await $("video").play();
}
function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  $("live").hidden = true;
}
function shoot() {
  const video = $("video"), still = document.createElement("canvas");
  Object.assign(still, { width: video.videoWidth, height: video.videoHeight });
  still.getContext("2d").drawImage(video, 0, 0);
  stopCamera();
  still.toBlob((blob) => open(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.95);
}

function zoomAtMiddle(factor) { view.zoom(factor, canvas.width / 2, canvas.height / 2); refresh(); }

const KEYS = {
  "+": () => zoomAtMiddle(1.25), "=": () => zoomAtMiddle(1.25), "-": () => zoomAtMiddle(0.8), 0: fit,
  ArrowLeft: () => (view.move(60, 0), refresh()), ArrowRight: () => (view.move(-60, 0), refresh()),
  ArrowUp: () => (view.move(0, 60), refresh()), ArrowDown: () => (view.move(0, -60), refresh()),
  "[": () => step(-0.05), "]": () => step(0.05), o: () => $("file").click(),
};
function step(by) {
  const slider = $("threshold");
  slider.value = Number(slider.value) + by;
  $("auto").checked = false;
  refresh();
}

function listenToKeys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=password]")) return;
    if (event.key.startsWith("Arrow") && event.target !== canvas && event.target !== document.body) return;
    const action = KEYS[event.key];
    if (action) { event.preventDefault(); action(); }
  });
}

function listenToPointers() {
  const fingers = new Map();
  const place = (event) => [event.offsetX * devicePixelRatio, event.offsetY * devicePixelRatio];
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.zoom(Math.exp(-event.deltaY * 0.0015), ...place(event));
    refresh();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, place(event)); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) view.zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), ...other);
    else view.move(now[0] - before[0], now[1] - before[1]);
    fingers.set(event.pointerId, now);
    refresh();
  });
  canvas.addEventListener("dblclick", (event) => { view.zoom(2, ...place(event)); refresh(); });
}

function listenToFiles() {
  $("file").addEventListener("change", (event) => { open(event.target.files[0]); event.target.value = ""; });
  addEventListener("paste", (event) => open([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
  for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => { event.preventDefault(); $("stage").classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) addEventListener(kind, (event) => { event.preventDefault(); $("stage").classList.remove("over"); });
  addEventListener("drop", (event) => open(event.dataTransfer.files[0]));
}

function listen() {
  $("threshold").addEventListener("input", () => { $("auto").checked = false; });
  for (const id of ["threshold", "auto", "opacity", "show-boxes", "show-masks", "show-labels"]) $(id).addEventListener("input", refresh);
  $("save-json").addEventListener("click", saveJson);
  $("save-picture").addEventListener("click", savePicture);
  $("camera").addEventListener("click", startCamera);
  $("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("shoot").addEventListener("click", shoot);
  $("stop").addEventListener("click", stopCamera);
  $("token-form").addEventListener("submit", (event) => { event.preventDefault(); sessionStorage.setItem("token", $("token").value); learnModel(); });
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  });
  new ResizeObserver(fit).observe(canvas);
  listenToKeys();
  listenToPointers();
  listenToFiles();
}

listen();
learnModel();
