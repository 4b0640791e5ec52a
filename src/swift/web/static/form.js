"use strict";
// A form: what is set is sent, what is not set is not. The server makes the command line and finds the mistakes.
const form = $("#form");
const fields = $$(".field", form);
const control = (field) => $("input, select, textarea", field);
const secret = (field) => "secret" in control(field).dataset;

// Drafts come back from the server; only the fields that the page was given as set are set.
function set(field, text) {
  const input = control(field);
  field.classList.toggle("set", text !== null);
  if (input.tagName === "SELECT" && text !== null && ![...input.options].some((option) => option.value === text)) {
    input.add(new Option(text));
  }
  input.value = text ?? "";
  empty(field);
}
function empty(field) {
  const input = control(field);
  const is = field.classList.contains("set") && input.value === "" && field.dataset.empty === "text";
  input.placeholder = is ? WORDS.empty_text : input.dataset.placeholder ?? "";
}
for (const field of fields) {
  control(field).dataset.placeholder = control(field).placeholder ?? "";
  empty(field);
}

function values() {
  const all = {};
  for (const field of fields) if (field.classList.contains("set") && !secret(field)) all[field.dataset.name] = control(field).value;
  return all;
}
function secrets() {
  const all = {};
  for (const field of fields) if (secret(field) && control(field).value) all[field.dataset.name] = control(field).value;
  return all;
}

function show(errors) {
  for (const field of fields) {
    const texts = errors[field.dataset.name] ?? [];
    $(".error", field).textContent = texts.join("\n");
    field.classList.toggle("bad", texts.length > 0);
  }
  const all = Object.entries(errors).flatMap(([name, texts]) => texts.map((text) => [name, text]));
  $("#general").replaceChildren(...all.map(([name, text]) => {
    const item = document.createElement("li");
    const link = document.createElement(name ? "a" : "span");
    link.textContent = text;
    if (name) { link.href = "#"; link.dataset.to = name; }
    item.append(link);
    return item;
  }));
}
$("#general").addEventListener("click", (event) => {
  const name = event.target.dataset.to;
  if (!name) return;
  event.preventDefault();
  reveal(name);
});
function reveal(name) {
  const field = document.getElementById(`f-${name}`);
  $("#search").value = "";
  $("#only-set").checked = false;
  filter();
  const group = field.closest("details");
  if (group) group.open = true;
  field.scrollIntoView({ block: "center" });
  control(field).focus({ preventScroll: true });
}

function pale() {
  for (const field of fields) {
    if (!field.dataset.only) continue;
    const other = document.getElementById(`f-${field.dataset.only}`);
    if (!other) continue;
    const input = control(other);
    const now = other.classList.contains("set") ? input.value : (input.options ? input.options[0].text.replace(/^[^:]*: /, "") : input.dataset.placeholder);
    field.classList.toggle("idle", !field.dataset.values.split(" ").includes(now));
  }
}

let number = 0;
let waiting;
let last = Promise.resolve();
function look() {
  clearTimeout(waiting);
  pale();
  const mine = ++number;
  // One after another: what is kept last is what was typed last.
  return last = last.then(() => ask(mine));
}
async function ask(mine) {
  if (mine !== number) return;
  try {
    const answer = await post("api/command", { command: form.dataset.command, values: values() });
    if (mine !== number) return;
    $("#line").textContent = answer.line ?? "";
    show($(".field.set", form) ? answer.errors ?? {} : {});  // an untouched form is not wrong yet
  } catch { if (mine === number) say(WORDS.no_server); }
}
function soon() { clearTimeout(waiting); waiting = setTimeout(look, 120); }

form.addEventListener("input", (event) => {
  const field = event.target.closest(".field");
  if (!field) return;
  if (event.target.dataset.adds) return;
  const input = control(field);
  const cleared = input.value === "" && (input.tagName === "SELECT" || field.dataset.empty === "default" || secret(field));
  field.classList.toggle("set", !cleared);
  empty(field);
  soon();
});
form.addEventListener("change", (event) => {
  const id = event.target.dataset.adds;
  if (!id || !event.target.value) return;
  const area = document.getElementById(id);
  area.value = [...area.value.split("\n").filter(Boolean), event.target.value].join("\n");
  event.target.value = "";
  area.closest(".field").classList.add("set");
  soon();
});
form.addEventListener("click", (event) => {
  if (!event.target.matches(".reset")) return;
  set(event.target.closest(".field"), null);
  soon();
});

function filter() {
  const wanted = $("#search").value.toLowerCase().replace(/^--/, "").split(/\s+/).filter(Boolean);
  const onlySet = $("#only-set").checked;
  let any = false;
  for (const field of fields) {
    const text = `${field.dataset.name} ${field.dataset.search} ${field.textContent}`.toLowerCase();
    const fits = wanted.every((word) => text.includes(word)) && (!onlySet || field.classList.contains("set"));
    field.classList.toggle("away", !fits);
    any ||= fits;
  }
  for (const group of $$("[data-group], fieldset", form)) {
    const filled = $$(".field", group).length === 0 || $$(".field:not(.away)", group).length > 0;
    group.classList.toggle("away", !filled);
    if (group.tagName === "DETAILS") group.open = filled && (wanted.length > 0 || onlySet);
  }
  $("#no-match").hidden = any;
}
$("#search").addEventListener("input", filter);
$("#only-set").addEventListener("change", filter);
$("#search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  const first = fields.find((field) => !field.classList.contains("away"));
  if (first) control(first).focus();
});

$("#copy").addEventListener("click", () => copy($("#line").textContent));
$("#reset").addEventListener("click", () => {
  if (!confirm(WORDS.sure_reset)) return;
  for (const field of fields) set(field, null);
  soon();
});
$("#yaml-down").addEventListener("click", async () => {
  const answer = await post("api/yaml", { command: form.dataset.command, values: values() });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([answer.yaml], { type: "application/yaml" }));
  link.download = `${form.dataset.command}.yaml`;
  link.click();
  URL.revokeObjectURL(link.href);
});
$("#yaml-up").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  const answer = await post("api/file", { command: form.dataset.command, name: file.name, content: await file.text() });
  if (answer.values && !Array.isArray(answer.values)) {
    for (const field of fields) if (!secret(field)) set(field, answer.values[field.dataset.name] ?? null);
  }
  const problems = Array.isArray(answer.errors) ? answer.errors : Object.values(answer.errors ?? {}).flat();
  if (problems.length) say(problems.join("\n"));
  event.target.value = "";
  soon();
});

async function start(dry) {
  const devices = $$("[name=device]:checked", form).map((each) => each.value);
  let answer;
  try {
    answer = await post("api/jobs", { command: form.dataset.command, values: values(), secrets: secrets(), devices, dry });
  } catch { say(WORDS.no_server); return; }
  if (answer.errors) {
    show(answer.errors);
    const first = Object.keys(answer.errors).find((name) => name && document.getElementById(`f-${name}`));
    if (first) reveal(first);
    return;
  }
  if (!dry) { location = answer.to; return; }
  $("#trial").hidden = false;
  $("#trial-log").textContent = "";
  $("#trial").scrollIntoView({ block: "nearest" });
  follow(`jobs/${answer.id}/events`, (event) => {
    if ("log" in event.parts) renew("trial-log", event.parts.log);
    $("#trial-state").textContent = event.over ? "" : "…";
    if (event.over && Object.keys(event.errors ?? {}).length) show(event.errors);
  });
}
form.addEventListener("submit", (event) => { event.preventDefault(); start(false); });
$("#dry")?.addEventListener("click", () => start(true));
look();
