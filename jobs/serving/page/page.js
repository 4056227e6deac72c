// The page of `affuse serve`: record, upload or type; wait; show. No library, no other server.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MODALITY = { audio: "Voice", text: "Words", video: "Face" };
const COLOURS = ["#5b84b1", "#e3a857", "#7fae9f", "#a98bb8", "#d98880", "#8fb26a", "#c9b458", "#6fb3c4", "#b08968", "#98a2ad"];
const POLL_MS = 300;

let facts = null;
let given = null; // {blob, name}
let recorder = null;
let shown = ""; // id of the order on the page
let captioned = ""; // id of the order of its film with captions

// ---- elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const seconds = (value) => `${value.toFixed(1)} s`;

// ---- tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab, focus = true) {
  if (recorder !== null) stopRecording();
  for (const each of tabs) {
    const on = each === tab;
    each.setAttribute("aria-selected", on);
    each.tabIndex = on ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !on;
  }
  if (focus) tab.focus();
}

for (const [place, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(tabs[(place + step + tabs.length) % tabs.length]);
  });
}

// ---- giving something

function give(blob, name) {
  given = { blob, name };
  $("given-name").textContent = `${name}, ${(blob.size / 2 ** 20).toFixed(1)} MB`;
  const kind = blob.type.split("/")[0];
  const tag = { audio: "audio", video: "video", image: "img" }[kind];
  $("player").replaceChildren();
  if (tag) {
    const player = element(tag, tag === "img" ? { alt: name } : { controls: "", "aria-label": name });
    player.src = URL.createObjectURL(blob);
    $("player").append(player);
  }
  $("given").hidden = false;
  $("send").disabled = false;
  $("send").focus();
}

function discard() {
  for (const player of $("player").children) URL.revokeObjectURL(player.src);
  $("player").replaceChildren();
  $("given").hidden = true;
  $("file").value = "";
  given = null;
}

$("discard").addEventListener("click", discard);
$("file").addEventListener("change", () => {
  if ($("file").files.length) give($("file").files[0], $("file").files[0].name);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) {
      give(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
    }
  });
}
$("typed").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData();
  form.set("text", $("text").value);
  send(form);
});
$("send").addEventListener("click", () => {
  const form = new FormData();
  form.set("file", given.blob, given.name);
  send(form);
});

// ---- recording

async function record(button) {
  const film = button.dataset.record === "video";
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: film });
  } catch (error) {
    complain(`The ${film ? "camera" : "microphone"} cannot be used: ${error.message}. Allow it in the browser, or upload a file.`);
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const words = button.querySelector(".words");
  const clock = button.parentElement.querySelector(".clock");
  const begun = Date.now();
  const ticking = setInterval(() => {
    const passed = (Date.now() - begun) / 1000;
    clock.textContent = seconds(passed);
    if (facts && passed >= facts.max_s - 1) stopRecording();
  }, 100);
  recorder.addEventListener("stop", () => {
    clearInterval(ticking);
    for (const track of stream.getTracks()) track.stop();
    $("mirror").hidden = true;
    $("mirror").srcObject = null;
    button.classList.remove("live");
    words.textContent = "Record again";
    const type = parts[0]?.type.split(";")[0] || (film ? "video/webm" : "audio/webm");
    give(new Blob(parts, { type }), "recording");
  });
  if (film) {
    $("mirror").srcObject = stream;
    $("mirror").hidden = false;
    $("mirror").play();
  }
  recorder.start();
  button.classList.add("live");
  words.textContent = "Stop";
}

function stopRecording() {
  const running = recorder;
  recorder = null;
  if (running.state !== "inactive") running.stop();
}

for (const button of document.querySelectorAll("[data-record]")) {
  button.addEventListener("click", () => (recorder === null ? record(button) : stopRecording()));
}

// ---- asking

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error("The server cannot be reached."), { away: true });
  }
  if (answer.status === 204) return null;
  if (answer.status === 401) throw Object.assign(new Error("The server asks for its token again."), { token: true });
  let said;
  try {
    said = await answer.json();
  } catch {
    throw new Error(`The server answered with status ${answer.status}.`);
  }
  if (!answer.ok) throw new Error(said.error);
  return said;
}

async function send(form) {
  const file = form.get("file");
  if (facts && file instanceof Blob && file.size > facts.max_mb * 2 ** 20) {
    show("");
    complain(`This file has ${(file.size / 2 ** 20).toFixed(1)} MB; at most ${facts.max_mb} MB are taken.`);
    return;
  }
  $("send").disabled = true;
  show("");
  wait("Sending", null);
  try {
    const order = await ask("/orders", { method: "POST", body: form });
    history.pushState(null, "", `#${order.id}`);
    follow(order.id);
  } catch (error) {
    complain(error);
  }
  $("send").disabled = false;
}

const PATIENCE = 60; // questions in a row that no server answers, before the page gives up

const pause = () => new Promise((then) => setTimeout(then, POLL_MS));

/** How far an order is; a server that is away for a moment is asked again. */
async function state(id, wanted) {
  for (let patience = PATIENCE; ; patience -= 1) {
    try {
      return await ask(`/orders/${encodeURIComponent(id)}`);
    } catch (error) {
      if (!error.away || patience === 0 || !wanted()) throw error;
    }
    await pause();
  }
}

async function follow(id) {
  show(id);
  while (shown === id) {
    let order;
    try {
      order = await state(id, () => shown === id);
    } catch (error) {
      if (shown === id) complain(error);
      return;
    }
    if (shown !== id) return;
    if (order.state === "done") return present(order);
    if (order.state === "refused") return complain(order.error);
    if (order.state === "waiting") {
      wait(order.place > 1 ? `Place ${order.place} in the queue` : "Next in the queue", null);
    } else {
      wait("Listening and looking", order.progress || null);
    }
    await pause();
  }
}

$("film").addEventListener("click", async () => {
  const of = shown;
  $("film").disabled = true;
  try {
    let order = await ask(`/orders/${encodeURIComponent(of)}/film`, { method: "POST" });
    captioned = order.id;
    while (order.state !== "done" && shown === of) {
      if (order.state === "refused") throw new Error(order.error);
      sayOfFilm(order.place ? `Place ${order.place} in the queue` : `Writing captions: ${percent(order.progress)}`);
      await pause();
      order = await state(order.id, () => shown === of);
    }
    if (shown !== of) return;
    sayOfFilm("The film with captions is there.");
    const name = order.answer.name.replace(/\.[^.]*$/, "");
    element("a", { href: `/orders/${encodeURIComponent(order.id)}/film.mp4`, download: `${name}.captioned.mp4` }).click();
  } catch (error) {
    if (shown === of) sayOfFilm(error);
  }
  $("film").disabled = false;
});

$("forget").addEventListener("click", async () => {
  for (const id of [shown, captioned].filter(Boolean)) {
    try {
      await ask(`/orders/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch {
      // It is gone already.
    }
  }
  history.replaceState(null, "", "/");
  discard();
  show("");
});

// ---- showing

function show(id) {
  shown = id;
  captioned = "";
  for (const part of ["progress", "problem", "answer"]) $(part).hidden = true;
  $("empty").hidden = id !== "";
}

function wait(words, share) {
  $("empty").hidden = true;
  $("progress").hidden = false;
  if ($("progress-words").textContent !== words) $("progress-words").textContent = words;
  if (share === null) $("bar").removeAttribute("value");
  else $("bar").value = share;
}

function sayOfFilm(problem) {
  $("film-state").hidden = false;
  tell($("film-state"), problem);
}

function complain(problem) {
  $("empty").hidden = $("progress").hidden = $("answer").hidden = true;
  $("problem").hidden = false;
  tell($("problem"), problem);
}

/** A sentence or an error; where a token is needed, the way to its form, beside this page and what was given to it. */
function tell(place, problem) {
  place.textContent = problem.message ?? problem;
  if (problem.token) place.append(" ", element("a", { href: "/login", target: "_blank" }, "Enter the token"), ", then try again here.");
}

function present(order) {
  const answer = order.answer;
  $("progress").hidden = true;
  $("answer").hidden = false;
  $("label").textContent = answer.label ?? (answer.value === null ? "None" : answer.value.toFixed(2));
  $("confidence").textContent = answer.confidence === null ? "" : `${percent(answer.confidence)} sure`;
  const unread = [answer.error, answer.hint].filter(Boolean).join("; ");
  $("partial").hidden = unread === "";
  $("partial").textContent = `Not everything could be read: ${unread}`;
  const shares = answer.probabilities ?? {};
  const classes = answer.classes.filter((name) => name in shares);
  $("radar").replaceChildren(...(classes.length > 2 ? [radar(classes, shares, answer.label)] : []));
  $("shares").replaceChildren(...bars(shares, answer.label));
  $("modalities-part").hidden = answer.modalities.length === 0;
  $("modalities").replaceChildren(...answer.modalities.map(modality));
  $("timeline-part").hidden = answer.timeline.length === 0;
  $("timeline").replaceChildren(...(answer.timeline.length ? [timeline(answer)] : []));
  $("transcript-part").hidden = !answer.transcript;
  $("transcript").replaceChildren(...transcript(answer.transcript));
  $("json").href = `/orders/${order.id}/scores.json`;
  $("film").hidden = !answer.film;
  $("film").disabled = false;
  $("film-state").hidden = true;
  $("csv").href = `/orders/${order.id}/scores.csv`;
  if ($("result-title").getBoundingClientRect().top > innerHeight / 2) $("result-title").scrollIntoView();
}

function radar(classes, shares, label) {
  const size = 320, middle = size / 2, reach = 112;
  const top = Math.max(...classes.map((name) => shares[name]));
  const full = [0.25, 0.5, 0.75, 1].find((ring) => ring >= top - 1e-9) ?? 1;
  const at = (place, share) => {
    const turn = (2 * Math.PI * place) / classes.length - Math.PI / 2;
    return [middle + reach * share * Math.cos(turn), middle + reach * share * Math.sin(turn)];
  };
  const outline = (share) => classes.map((_, place) => at(place, share).map((v) => v.toFixed(2)).join(",")).join(" ");
  const said = classes.map((name) => `${name} ${percent(shares[name])}`).join(", ");
  const chart = drawn("svg", { viewBox: `-48 0 ${size + 96} ${size}`, role: "img", "aria-label": `Radar chart: ${said}`, "data-full": full });
  for (const ring of [0.25, 0.5, 0.75, 1]) chart.append(drawn("polygon", { class: "ring", points: outline(ring) }));
  const points = [];
  for (const [place, name] of classes.entries()) {
    const [x, y] = at(place, 1);
    chart.append(drawn("line", { class: "spoke", x1: middle, y1: middle, x2: x, y2: y }));
    const [tx, ty] = at(place, 1.14);
    const anchor = Math.abs(tx - middle) < 8 ? "middle" : tx > middle ? "start" : "end";
    chart.append(drawn("text", { class: name === label ? "axis best" : "axis", x: tx, y: ty + 4, "text-anchor": anchor }, name));
    const [px, py] = at(place, shares[name] / full);
    points.push(drawn("circle", { class: "point", cx: px, cy: py, r: 3.5, "data-class": name, "data-value": shares[name] }));
  }
  const shape = points.map((point) => `${point.getAttribute("cx")},${point.getAttribute("cy")}`).join(" ");
  chart.append(drawn("polygon", { class: "shape", points: shape }), ...points);
  chart.append(drawn("text", { class: "scale", x: middle + 5, y: middle - reach + 13 }, percent(full)));
  return chart;
}

function bars(shares, label) {
  const best = new Set((label ?? "").split("+"));
  return Object.entries(shares).sort((a, b) => b[1] - a[1]).map(([name, share]) => {
    const fill = element("span", { class: "fill" });
    fill.style.setProperty("--share", share);
    const track = element("span", { class: "track", "aria-hidden": "true" }, fill);
    return element("div", { class: best.has(name) ? "bar best" : "bar", role: "listitem", "data-class": name, "data-value": share },
      element("span", { class: "name", title: name }, name), track, element("span", { class: "figure" }, percent(share)));
  });
}

function modality(said) {
  const sure = said.confidence === null ? "" : ` ${percent(said.confidence)}`;
  const words = said.label ?? (said.value === null ? "nothing" : said.value.toFixed(2));
  const most = Object.fromEntries(Object.entries(said.probabilities ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 4));
  return element("div", { class: "modality", "data-modality": said.modality },
    element("h4", {}, MODALITY[said.modality] ?? said.modality), element("p", { class: "said" }, words + sure),
    element("div", { class: "bars", role: "list" }, ...bars(most, said.label)));
}

function timeline(answer) {
  const width = Math.max($("answer").clientWidth, 240), height = 112, base = 86;
  const scale = width / answer.duration_s;
  const said = answer.timeline.map((piece) => `${seconds(piece.start_s)}: ${piece.label ?? "nothing"}`).join(", ");
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Over time: ${said}` });
  for (const piece of answer.timeline) {
    const x = piece.start_s * scale, wide = (piece.end_s - piece.start_s) * scale;
    const sure = piece.confidence ?? 0, high = 64 * sure;
    const colour = COLOURS[Math.max(0, answer.classes.indexOf(piece.label)) % COLOURS.length];
    const bar = drawn("rect", { x: x + 1, y: base - high, width: Math.max(wide - 2, 1), height: high, rx: 4, fill: colour });
    bar.append(drawn("title", {}, `${seconds(piece.start_s)} to ${seconds(piece.end_s)}: ${piece.label ?? "nothing"} ${percent(sure)}`));
    chart.append(drawn("rect", { class: "room", x: x + 1, y: base - 64, width: Math.max(wide - 2, 1), height: 64, rx: 4 }), bar);
    if (piece.label && wide > 7 * piece.label.length) {
      chart.append(drawn("text", { class: "piece-label", x: x + wide / 2, y: 14, "text-anchor": "middle" }, piece.label));
    }
    if (wide > 34) chart.append(drawn("text", { class: "second", x: x + 1, y: base + 16 }, seconds(piece.start_s)));
  }
  chart.append(drawn("line", { class: "spoke", x1: 0, y1: base, x2: width, y2: base }));
  return chart;
}

function transcript(heard) {
  if (!heard) return [];
  if (!heard.words || !heard.words.length) return [heard.text.trim() || "(no words)"];
  return heard.words.flatMap((word) => [
    element("span", { class: "word", title: `${seconds(word.start_s)} to ${seconds(word.end_s)}` }, word.text.trim(),
      element("time", {}, word.start_s.toFixed(1))), " "]);
}

// ---- light and dark, back and reload

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

function arrive() {
  const id = location.hash.slice(1);
  if (id) follow(id);
  else show("");
}

addEventListener("popstate", arrive);
try {
  facts = await ask("/facts");
} catch (error) {
  complain(error);
  throw error;
}
$("served").textContent = `${facts.bundle}: ${facts.task}`;
$("kept").textContent = facts.keep_s < 120 ? `${Math.round(facts.keep_s)} s` : `${Math.round(facts.keep_s / 60)} minutes`;
$("limits").textContent = `Sound, film or picture, up to ${facts.max_mb} MB and ${facts.max_s} s`;
$("text").maxLength = facts.max_letters;
const reads = (name) => facts.modalities.length === 0 || facts.modalities.includes(name);
const hears = reads("audio") || facts.transcribes;
$("tab-type").hidden = !facts.modalities.includes("text");
$("tab-speak").hidden = !hears;
$("tab-film").hidden = $("tab-upload").hidden = !hears && !reads("video");
const offered = tabs.filter((tab) => !tab.hidden);
const ways = offered.map((tab) => tab.textContent.toLowerCase());
const listed = [ways.slice(0, -1).join(", "), ways.at(-1)].filter(Boolean).join(" or ");
$("ways").textContent = listed[0].toUpperCase() + listed.slice(1);
if ($("tab-speak").hidden) choose(offered[0], false);
arrive();
