"use strict";
// What every page does: buttons that ask the server, parts that the server renews, texts to copy.
const WORDS = JSON.parse(document.getElementById("words").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

async function post(address, body) {
  const answer = await fetch(address, {
    method: "POST", headers: { "content-type": "application/json", "x-swift": "1" }, body: JSON.stringify(body ?? {}),
  });
  const text = await answer.text();
  let read;
  try { read = JSON.parse(text); } catch { read = { errors: { "": [text] } }; }
  if (!answer.ok && !read.errors) read.errors = { "": [typeof read.detail === "string" ? read.detail : text] };
  return read;
}

let hiding;
function say(text, action, act) {
  const box = $("#message");
  box.textContent = text;
  if (action) {
    const button = document.createElement("button");
    button.textContent = action;
    button.onclick = () => { box.hidden = true; act(); };
    box.append(button);
  }
  box.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { box.hidden = true; }, action ? 12000 : 6000);
}

async function copy(text) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.createElement("textarea");  // a page that is not served from this machine
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(WORDS.copied);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-post], [data-copy]");
  if (!button) return;
  if (button.dataset.copy) return copy(document.getElementById(button.dataset.copy).textContent);
  event.preventDefault();
  if (button.dataset.sure && !confirm(WORDS[`sure_${button.dataset.sure}`])) return;
  button.disabled = true;
  try {
    const answer = await post(button.dataset.post, JSON.parse(button.dataset.body ?? "{}"));
    if (answer.errors) say(Object.values(answer.errors).flat().join("\n"));
    else if (answer.to && !("stay" in button.dataset) && new URL(answer.to, document.baseURI).pathname !== location.pathname) location = answer.to;
  } catch { say(WORDS.no_server); }
  button.disabled = false;
});

// A part is replaced only where it changed, and keeps what its reader opened, marked and scrolled.
function renew(id, text) {
  const part = document.getElementById(id);
  if (!part) return;
  const fresh = document.createElement(part.tagName);
  fresh.innerHTML = text;
  if (fresh.innerHTML === part.innerHTML) return;  // a button that is being pressed stays
  const open = $$("details", part).map((each) => each.open);
  const chosen = new Set($$("input:checked", part).map((each) => each.value));
  const atEnd = part.scrollHeight - part.scrollTop - part.clientHeight < 40;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const label = focused && (focused.dataset.post || focused.getAttribute("href") || focused.value);
  part.replaceChildren(...fresh.childNodes);
  $$("details", part).forEach((each, number) => { if (number in open) each.open = open[number]; });
  $$("input[type=checkbox]", part).forEach((each) => { each.checked = chosen.has(each.value); });
  if (part.tagName === "PRE" && atEnd) part.scrollTop = part.scrollHeight;
  if (label) $$("button, a, input", part).find((each) => [each.dataset.post, each.getAttribute("href"), each.value].includes(label))?.focus();
}

function follow(address, seen) {
  const source = new EventSource(address);
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    seen(event);
    if (event.over) source.close();
  };
  // A server that was away for long makes the browser give up; it is asked again.
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(address, seen), 1000); };
  return source;
}

for (const part of $$("[data-events]")) {
  follow(part.dataset.events, (event) => { for (const [id, text] of Object.entries(event.parts)) renew(id, text); });
}
for (const log of $$("pre.log")) log.scrollTop = log.scrollHeight;

// Values to choose from are fetched while somebody types.
let asking;
document.addEventListener("input", (event) => {
  const field = event.target;
  if (!field.dataset.suggest || !field.list) return;
  clearTimeout(asking);
  asking = setTimeout(() => suggest(field), 120);
});
document.addEventListener("focusin", (event) => { if (event.target.dataset.suggest && event.target.list) suggest(event.target); });
async function suggest(field) {
  const all = [];
  for (const place of field.dataset.suggest.split(" ")) {
    const [command, flag] = place.split("/");
    const query = new URLSearchParams({ command, flag, typed: field.value });
    try { all.push(...await (await fetch(`api/suggest?${query}`)).json()); } catch { return; }
  }
  field.list.replaceChildren(...all.map((value) => new Option("", value)));
}

$("form[data-compare]")?.addEventListener("submit", (event) => {
  if ($("input[name=run]:checked", event.target)) return;
  event.preventDefault();
  say(WORDS.choose_runs);
});
$("form[data-chat]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = event.target.elements.model.value.trim() || event.target.elements.model.placeholder;
  const checkpoint = /checkpoint-\d+[^/]*\/?$/.test(name);
  try {
    const answer = await post("api/chat", checkpoint ? { ckpt_dir: name } : { model: name });
    if (answer.errors) say(Object.values(answer.errors).flat().join("\n"));
    else location = answer.to;
  } catch { say(WORDS.no_server); }
});
// Addresses are relative to the page's base, which a proxy may have put below a path of its own.
const language = $("#lang");
language.href += `&to=${encodeURIComponent((location.pathname + location.search).slice(new URL(document.baseURI).pathname.length))}`;
$(".skip").addEventListener("click", (event) => { event.preventDefault(); $("#main").focus(); });
