// Puts the page together: model, slots, examples, request, result.

import { Slots } from "./files.js";
import { Fault, blobOf, getFile, getJson, segment } from "./service.js";
import { Viewer } from "./viewer.js";

const find = (id) => document.getElementById(id);
const viewer = new Viewer();
let slots, model, running, maskUrl;

function say(error) {
  find("fault").hidden = !error;
  find("fault").textContent = error ? error.message : "";
}

function refresh() {
  if (slots) find("run").disabled = !slots.complete;
}

function check(files) {
  const bytes = Object.values(files).reduce((sum, file) => sum + file.size, 0);
  const most = model.limits.max_bytes;
  if (bytes > most - 1024) {
    throw new Fault(`The images have ${bytes} bytes; this service takes ${most} in all. Choose smaller or compressed ones.`);
  }
}

async function run() {
  running?.abort();
  const mine = running = new AbortController();
  const button = find("run");
  say(null);
  button.setAttribute("aria-busy", "true");
  button.textContent = "Segmenting…";
  find("working").hidden = false;
  try {
    check(slots.chosen);
    const answer = await segment(slots.chosen, mine.signal);
    if (mine === running) await present(answer);
  } catch (error) {
    if (error.name !== "AbortError" && mine === running) say(error);
  } finally {
    if (mine === running) {
      button.removeAttribute("aria-busy");
      button.textContent = "Segment";
      find("working").hidden = true;
    }
  }
}

async function present(answer) {
  await viewer.show(answer);
  const { rgb, thermal } = answer.views;
  find("base").hidden = !(rgb && thermal);
  const chosen = document.querySelector("#base :checked").value;
  await viewer.setBase(answer.views[chosen] ? chosen : rgb ? "rgb" : "thermal");
  setOpacity();
  for (const id of ["viewer", "tools", "legend"]) find(id).hidden = false;
  find("invitation").hidden = true;
  find("bench").classList.add("answered");
  find("frame").scrollIntoView({ block: "nearest" });
  if (slots.mode === "pair") for (const field of slots.needed) slots.picture(field, blobOf(answer.views[field]));
  URL.revokeObjectURL(maskUrl);
  maskUrl = URL.createObjectURL(blobOf(answer.mask));
  find("download-mask").href = maskUrl;
  find("download-mask").download = `${stem()}_mask.png`;
  const { width, height } = answer.size;
  const { network_ms: network, total_ms: total } = answer.timing;
  find("timing").textContent = `${width} × ${height} pixels, ${Math.round(total)} ms, ${Math.round(network)} of them in the network`;
}

function stem() {
  const file = slots.files[slots.needed[0]];
  return file ? file.name.replace(/\.[^.]*$/, "") : "pair";
}

function setOpacity() {
  const value = Number(find("opacity").value);
  viewer.setOpacity(value / 100);
  find("opacity-value").textContent = `${value} %`;
  find("opacity").setAttribute("aria-valuetext", `${value} %`);
}

async function saveOverlay() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await viewer.overlay());
  link.download = `${stem()}_overlay.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function tryExample(example) {
  say(null);
  try {
    slots.setMode("pair");
    const files = await Promise.all(slots.needed.map(async (field) => [field, await getFile(example[field], `${example.name}_${field}.png`)]));
    slots.put(Object.fromEntries(files));
    await run();
  } catch (error) {
    say(error);
  }
}

async function listExamples() {
  for (const example of await getJson("v1/examples")) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const image = document.createElement("img");
    button.type = "button";
    image.src = example.thumbnail;
    image.alt = "";
    button.append(image, example.title);
    button.addEventListener("click", () => tryExample(example));
    item.append(button);
    find("examples").append(item);
  }
}

function acceptDrops() {
  const leave = () => document.body.classList.remove("dragging");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) leave(); });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    leave();
    const files = [...event.dataTransfer.files];
    if (!files.length) return;
    say(files.length > 2 ? new Fault("Drop one pair at a time: two images, or one with four channels.") : null);
    if (files.length <= 2 && await slots.drop(files, event.target)) run();
  });
}

function describe() {
  const count = (model.parameters / 1e6).toFixed(1);
  find("model").textContent = `${model.name}, ${count} M parameters, on ${model.device}`;
  const size = model.input.size;
  const facts = [
    `efnet ${model.efnet_version}`,
    size ? `the network sees ${size.width} × ${size.height} pixels` : "the network sees images at their own size",
    model.training.dataset && `trained on ${model.training.dataset} (${model.training.train_pairs} pairs)`,
    `a pair may have ${Math.floor(model.limits.max_bytes / 2 ** 20)} MiB`,
  ];
  find("about").textContent = facts.filter(Boolean).join(" · ");
}

async function start() {
  find("opacity").addEventListener("input", setOpacity);
  find("base").addEventListener("change", (event) => viewer.setBase(event.target.value));
  find("run").addEventListener("click", run);
  find("download-overlay").addEventListener("click", saveOverlay);
  try {
    model = await getJson("v1/model");
    slots = new Slots(find("slots"), find("mode"), model.input.images, refresh);
    refresh();
    describe();
    acceptDrops();
    await listExamples();
  } catch (error) {
    say(error);
  }
}

start();
