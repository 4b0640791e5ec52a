"use strict";
// A chat with a model that a job serves. The talk is kept in the browser, one for each job.
const root = $("#chat");
const place = `api/chat/${root.dataset.job}`;
const store = `swift-chat-${root.dataset.job}`;
let talk = JSON.parse(localStorage.getItem(store) ?? "[]");
let running = null;

const keep = () => localStorage.setItem(store, JSON.stringify(talk));
const node = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// Code in its own block, the rest as text; nothing that a model writes becomes markup.
function write(place, text) {
  place.replaceChildren();
  text.split(/^```[^\n]*\n?/m).forEach((piece, number) => {
    if (!piece.trim()) return;
    if (number % 2) {
      const pre = node("pre");
      pre.tabIndex = 0;
      pre.append(node("code", "", piece.replace(/\n$/, "")));
      place.append(pre);
    } else place.append(node("p", "", piece.trim()));
  });
}

function draw() {
  const box = $("#talk");
  box.replaceChildren(...talk.map((turn, number) => {
    const shown = node("div", `turn ${turn.role}`);
    shown.append(node("div", "who", turn.role === "user" ? WORDS.you : WORDS.model));
    if (turn.thinking) {
      const details = node("details");
      details.append(node("summary", "", WORDS.thinking), node("p", "", turn.thinking));
      shown.append(details);
    }
    const text = node("div", "text");
    write(text, turn.text);
    shown.append(text);
    if (turn.role === "assistant") shown.append(foot(turn, number === talk.length - 1));
    return shown;
  }));
  $("#examples").hidden = talk.length > 0;
}
function foot(turn, last) {
  const line = node("div", "foot");
  if (turn.stopped) line.append(node("span", "stopped", WORDS.stopped));
  if (turn.cut) line.append(node("span", "stopped", WORDS.cut));
  if (turn.error) line.append(node("span", "error", turn.error));
  if (turn.tokens) line.append(node("span", "", `${turn.tokens} ${WORDS.tokens}` + (turn.speed ? ` · ${turn.speed.toFixed(1)} ${WORDS.tokens}/s` : "")));
  if (running && last) return line;
  const button = node("button", "", WORDS.copy);
  button.onclick = () => copy(turn.text);
  line.append(button);
  if (last) {
    const again = node("button", "", WORDS.again);
    again.onclick = () => { talk.pop(); answer(); };
    line.append(again);
  }
  return line;
}

function body() {
  const system = $("#system").value.trim();
  const messages = talk.map((turn) => ({ role: turn.role, content: turn.text }));
  const all = { model: $("#model-name").value, messages: system ? [{ role: "system", content: system }, ...messages] : messages };
  for (const [id, name] of [["temperature", "temperature"], ["top-p", "top_p"], ["max-tokens", "max_tokens"]]) {
    const text = document.getElementById(id).value.trim();
    if (text) all[name] = Number(text);
  }
  return all;
}

async function answer() {
  if (running) return;
  const asked = body();
  const turn = { role: "assistant", text: "" };
  talk.push(turn);
  running = new AbortController();
  busy(true);
  const began = performance.now();
  let first;
  try {
    const reply = await fetch(`${place}/completions`, {
      method: "POST", headers: { "content-type": "application/json", "x-swift": "1" }, body: JSON.stringify(asked), signal: running.signal,
    });
    if (!reply.ok) throw new Error(await reply.text());
    await read(reply.body, (event) => {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices?.[0];
      if (choice?.delta?.content) { first ??= performance.now(); turn.text += choice.delta.content; }
      if (choice?.delta?.reasoning_content) turn.thinking = (turn.thinking ?? "") + choice.delta.reasoning_content;
      if (choice?.finish_reason === "length") turn.cut = true;
      if (event.usage) turn.tokens = event.usage.completion_tokens;
      grow(turn);
    });
  } catch (error) {
    if (error.name === "AbortError") turn.stopped = true;
    else turn.error = error.message;
  }
  if (turn.tokens > 1 && first) turn.speed = (1000 * (turn.tokens - 1)) / (performance.now() - first);
  running = null;
  if (talk.includes(turn)) keep();
  busy(false);
  draw();
}
let drawing = 0;
function grow(turn) {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => {
    const atEnd = document.documentElement.scrollHeight - innerHeight - scrollY < 120;
    const shown = $("#talk").lastElementChild;
    if (!talk.includes(turn)) return;
    if ($(".text", shown)) write($(".text", shown), turn.text); 
    if (atEnd) scrollTo(0, document.documentElement.scrollHeight);
    keep();
  });
}
async function read(stream, each) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of chunks(stream)) {
    rest += decoder.decode(piece, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") each(JSON.parse(line.slice(6)));
  }
}
async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

function busy(is) {
  $("#send").hidden = is;
  $("#stop").hidden = !is;
  if (is) draw();
}
function ask(text) {
  if (running || !text.trim() || $("#send").disabled) return;
  talk.push({ role: "user", text });
  keep();
  answer();
  scrollTo(0, document.documentElement.scrollHeight);
}
$("#say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return;  // it stays in the box until the answer has ended
  const box = $("#box");
  if ($("#send").disabled || !box.value.trim()) return;
  const text = box.value;
  box.value = "";
  ask(text);
});
$("#box").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("#say").requestSubmit(); }
});
$("#stop").addEventListener("click", () => running?.abort());
for (const example of $$(".example")) example.addEventListener("click", () => ask(example.textContent));
$("#new-chat").addEventListener("click", () => {
  if (!talk.length) return;
  const before = talk;
  running?.abort();
  talk = [];
  keep();
  draw();
  say(WORDS.chat_cleared, WORDS.undo, () => { talk = before; keep(); draw(); });
});

async function look() {
  let wait = 700;
  try {
    const state = await (await fetch(place)).json();
    const ready = state.models.length > 0;
    $("#send").disabled = !ready;
    $("#server").textContent = ready ? state.with_media && `${WORDS.text_only} ${state.with_media}` : ["running", "starting", "queued"].includes(state.state) ? WORDS.starting : WORDS.ended;
    $("#server-log").textContent = ready ? "" : state.log;
    $("#address").textContent = state.address;
    $("#curl").textContent = state.curl;
    const select = $("#model-name");
    if (ready && select.options.length !== state.models.length) {
      select.replaceChildren(...state.models.map((name) => new Option(name)));
      select.value = state.model;
    }
    if (ready) wait = 5000;
  } catch { $("#server").textContent = WORDS.no_server; }
  setTimeout(look, wait);
}
talk = talk.filter((turn) => turn.text || turn.error || turn.stopped);
draw();
look();
