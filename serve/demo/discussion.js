// The discussion: history by fetch, everything after it by one EventSource.
//
// The stream carries Centrifugo's unidirectional protocol. EventSource would reconnect by itself, but
// with the position of the first connect in its address; so we reconnect, from where we are.

const COMMENTS = "discussion:article";
const VOTES = "votes:article";
const SHOWN_MAX = 500;        // comments in the page; the oldest go first
const WAITING_MAX = 200;      // comments that wait for the next drawing, likewise
const DRAW_EVERY_MS = 100;    // under a flood, draw in lots
const BACKOFF_MS = [500, 15_000];
const TIME_S_MAX = 8.64e12;   // the last moment that a Date can be
const PING_GRACE_S = 10;      // silence beyond the server's ping interval: the line is dead

const $ = (id) => document.getElementById(id);
const list = $("comments");

// --- small things

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");

/** localStorage, or nothing where the browser forbids it. */
const kept = {
  get(name, otherwise) {
    try { return JSON.parse(localStorage.getItem(name)) ?? otherwise; } catch { return otherwise; }
  },
  set(name, value) {
    try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* it is not kept, then */ }
  },
};

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

/** Post; return null, or why it did not work, in words. */
async function post(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    return "The server cannot be reached: try again in a moment.";
  }
  if (answer.ok) return null;
  const { detail } = await answer.json().catch(() => ({}));
  const text = typeof detail === "string" && detail ? detail : `the server answered ${answer.status}`;
  return text[0].toUpperCase() + text.slice(1) + ".";
}

// --- comments

// The server has made the HTML safe. It is built anew all the same, from these elements only, so
// that what anybody puts into the channel past the server's transform is harmless, too.
const ALLOWED = new Set(["B", "STRONG", "I", "EM", "CODE", "A"]);

function safe(html) {
  const copy = (from, to) => {
    for (const node of from.childNodes) {
      if (node.nodeType === Node.TEXT_NODE) to.append(node.data);
      else if (node.nodeType === Node.ELEMENT_NODE && !["SCRIPT", "STYLE", "TEMPLATE"].includes(node.tagName)) {
        copy(node, ALLOWED.has(node.tagName) ? to.appendChild(element(node)) : to);
      }
    }
    return to;
  };
  const body = new DOMParser().parseFromString(String(html), "text/html").body;
  return copy(body, document.createDocumentFragment());
}

function element(node) {
  const made = document.createElement(node.tagName);
  const href = node.tagName === "A" ? node.getAttribute("href") ?? "" : "";
  if (/^https?:\/\//i.test(href)) {
    made.href = href;
    made.rel = "nofollow noopener noreferrer";
    made.target = "_blank";
  }
  return made;
}

const shown = new Map();      // id -> its element
const votes = new Map();      // "<id>:up" and "<id>:down" -> total
const mine = new Map(Object.entries(kept.get("raywire-votes", {})));   // id -> 1 or -1
let oldest = Infinity;        // smallest offset shown

function draw(data, offset, isNew) {
  if (typeof data !== "object" || data === null || typeof data.id !== "string" || shown.has(data.id)) return null;
  const item = $("comment").content.firstElementChild.cloneNode(true);
  item.dataset.id = data.id;
  item.classList.toggle("new", isNew);
  item.querySelector(".author").append(safe(data.author ?? ""));
  item.querySelector(".text").append(safe(data.text ?? ""));
  const time = item.querySelector("time");
  const when = new Date(Math.min(Math.max(Number(data.time_s) || 0, 0), TIME_S_MAX) * 1000);
  time.dateTime = when.toISOString();
  time.title = when.toLocaleString();
  const mood = Number(data.mood) || 0;
  const word = mood > 0.25 ? "glad" : mood < -0.25 ? "cross" : "calm";
  const mark = item.querySelector(".mood");
  mark.dataset.mood = word;
  mark.title = `Mood ${mood.toFixed(2)}, from −1 to 1`;
  mark.lastElementChild.textContent = word;
  shown.set(data.id, item);
  oldest = Math.min(oldest, offset);
  tellTime(time);
  tellVotes(data.id);
  return item;
}

const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function tellTime(time) {
  const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
  const [size, unit] = seconds > -3600 ? [60, "minute"] : seconds > -86400 ? [3600, "hour"] : [86400, "day"];
  time.textContent = seconds > -60 ? "just now" : ago.format(Math.round(seconds / size), unit);
}
setInterval(() => list.querySelectorAll("time").forEach(tellTime), 30_000);

let waiting = [];
let drawing = 0;
let drawnAt = -Infinity;

/** Show comments that arrived now: at once, or with the next lot. */
function arrived(publications) {
  waiting.push(...publications);
  if (waiting.length > WAITING_MAX) waiting = waiting.slice(-WAITING_MAX);
  const due = drawnAt + DRAW_EVERY_MS - performance.now();
  if (due <= 0) flush();
  else drawing ||= setTimeout(flush, due);
}

function flush() {
  clearTimeout(drawing);
  drawing = 0;
  drawnAt = performance.now();
  // Emptied first: one that cannot be drawn would be there again each time.
  const items = waiting.splice(0).map(({ data, offset }) => draw(data, offset, true)).filter(Boolean).reverse();
  list.prepend(...items);
  trim();
  if (items.length) {
    const author = items[0].querySelector(".author").textContent;
    $("news").textContent = items.length > 1 ? `${items.length} new comments` : `New comment by ${author}`;
  }
}

function trim() {
  while (list.childElementCount > SHOWN_MAX) {
    shown.delete(list.lastElementChild.dataset.id);
    list.lastElementChild.remove();
    oldest = Infinity;        // there is no saying which offset is the last now: no more paging
    $("earlier").hidden = true;
  }
  $("empty").hidden = list.childElementCount > 0;
}

/** Forget what is shown. */
function clear() {
  list.replaceChildren();
  shown.clear();
  waiting = [];
  oldest = Infinity;
}

/** Show the latest comments, below those that came meanwhile; return the position after them. */
async function load() {
  const { offset, epoch, publications } = await ask("discussion/comments");
  append(publications);
  return { offset, epoch };
}

function append(publications) {
  const items = publications.map(({ data, offset }) => draw(data, offset ?? 0, false)).filter(Boolean);
  list.append(...items.reverse());
  const first = publications[0]?.offset ?? 0;
  oldest = Math.min(oldest, first || Infinity);
  $("earlier").hidden = publications.length < 50 || first <= 1 || list.childElementCount >= SHOWN_MAX;
  $("empty").hidden = list.childElementCount > 0;
}

$("earlier").addEventListener("click", async (event) => {
  event.target.disabled = true;
  complain(null);
  try { append((await ask(`discussion/comments?before=${oldest}`)).publications); }
  catch { complain("Earlier comments could not be read: try again in a moment.", event.target.parentElement); }
  finally { event.target.disabled = false; }
});

// --- votes

/** Take totals over. They only grow, so the larger one is the newer, whichever way it came. */
function counted(totals) {
  for (const [name, total] of Object.entries(totals ?? {})) {
    if (total > (votes.get(name) ?? 0)) votes.set(name, total);
    tellVotes(name.slice(0, name.lastIndexOf(":")));
  }
}

function tellVotes(id) {
  const item = shown.get(id);
  if (!item) return;
  for (const button of item.querySelectorAll("[data-vote]")) {
    const way = button.dataset.vote === "1" ? "up" : "down";
    const total = votes.get(`${id}:${way}`) ?? 0;
    button.querySelector(".n").textContent = total;
    button.setAttribute("aria-label", `Vote ${way}, ${total} so far`);
    button.setAttribute("aria-pressed", String(mine.get(id) === Number(button.dataset.vote)));
    // Not `disabled`: that would take the keyboard's focus away.
    button.setAttribute("aria-disabled", String(mine.has(id)));
  }
}

list.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-vote]");
  if (!button || button.getAttribute("aria-disabled") === "true") return;
  const item = button.closest(".comment");
  const { id } = item.dataset;
  const vote = Number(button.dataset.vote);
  mine.set(id, vote);
  tellVotes(id);
  complain(null);
  const why = await post("discussion/votes", { comment: id, vote, key: `${voter}:${id}` });
  if (why) {
    mine.delete(id);
    tellVotes(id);
    complain(why, item);
  } else {
    kept.set("raywire-votes", Object.fromEntries([...mine].slice(-1000)));
  }
});

const voter = kept.get("raywire-voter") ?? newKey();
kept.set("raywire-voter", voter);

// --- writing

const form = $("form");
let key = newKey();           // of the comment being written: sent twice, it appears once

const error = $("error");     // one for all, and kept here: its comment may leave the page

/** Say what went wrong, where the reader is looking; null: nothing did. */
function complain(text, place = form) {
  place.append(error);
  error.textContent = text ?? "";
  error.hidden = !text;
}

function tellLeft() {
  const left = 2000 - $("text").value.length;
  $("left").textContent = left < 300 ? `${left} characters left` : "";
}

$("author").value = kept.get("raywire-author", "");
form.addEventListener("input", () => { key = newKey(); tellLeft(); });
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("send").disabled) return;
  if (!$("text").value.trim()) {
    complain("Write something first.");
    $("text").focus();
    return;
  }
  $("send").disabled = true;
  kept.set("raywire-author", $("author").value);
  const why = await post("discussion/comments", { author: $("author").value, text: $("text").value, key });
  $("send").disabled = false;
  complain(why);
  if (!why) {
    $("text").value = "";
    key = newKey();
    tellLeft();
  }
});

// --- readers online

let asking = 0;

/** Ask for the number of readers, soon, and once for many who come at the same time. */
function countReaders() {
  asking ||= setTimeout(async () => {
    try {
      const { num_clients: readers } = await ask("discussion/readers");
      $("readers").textContent = readers === 1 ? "1 reader online" : `${readers} readers online`;
      $("readers").hidden = $("state").dataset.state !== "live";
    } catch { /* the next join, leave or minute asks again */ }
    asking = 0;
  }, 250);
}
setInterval(() => document.hidden || countReaders(), 60_000);

// --- the line to the server

function tellState(state, text) {
  const shownState = $("state");
  shownState.dataset.state = state;
  if (shownState.textContent !== text) shownState.textContent = text;
  $("retry").hidden = state !== "waiting" && state !== "ended";
  if (state !== "live") $("readers").hidden = true;   // what we know of them is old
}

/** Stay connected for as long as the page is there. */
class Line {
  constructor() {
    this.position = null;     // {offset, epoch}: the last comment that we have
    this.failures = 0;
    this.source = null;
    this.hurry = () => {};    // ends the wait before the next attempt
  }

  async run() {
    for (;;) {
      tellState("connecting", this.failures ? "Reconnecting…" : "Connecting…");
      const terminal = await this.stay().catch(() => null);
      if (terminal) {
        tellState("ended", `Disconnected: ${terminal}`);
        await new Promise((done) => { this.hurry = done; });
      } else {
        const [first, most] = BACKOFF_MS;
        const pause = Math.min(most, first * 2 ** this.failures++) * (0.5 + Math.random());
        tellState("waiting", navigator.onLine ? "Connection lost" : "You are offline");
        await Promise.race([wait(pause), new Promise((done) => { this.hurry = done; })]);
      }
    }
  }

  /** Connect and stay; return, when it is over, the reason if there is no use in coming again. */
  async stay() {
    if (!this.position) {
      clear();
      this.position = await load();
    }
    const subs = { [COMMENTS]: { recover: true, ...this.position }, [VOTES]: {} };
    const source = new EventSource(`connection/uni_sse?cf_connect=${encodeURIComponent(JSON.stringify({ subs, name: "page" }))}`);
    this.source = source;
    let patienceS = 20;
    let silence = 0;
    try {
      return await new Promise((done) => {
        const listen = () => {
          clearTimeout(silence);
          silence = setTimeout(() => done(null), patienceS * 1000);
        };
        listen();
        source.onerror = () => done(null);
        source.onmessage = ({ data }) => {
          const push = JSON.parse(data);
          if (push.connect) patienceS = (push.connect.ping || 3600) + PING_GRACE_S;
          listen();
          if (push.disconnect) done(isFinal(push.disconnect.code) ? push.disconnect.reason : null);
          else if (!this.take(push)) done(null);
        };
      });
    } finally {
      clearTimeout(silence);
      source.close();
    }
  }

  /** Take one push; false: we must connect anew. */
  take(push) {
    if (push.connect) return this.connected(push.connect.subs ?? {});
    if (push.join || push.leave) countReaders();
    else if (push.pub && push.channel === COMMENTS) this.advance([push.pub]);
    else if (push.pub && push.channel === VOTES) counted(push.pub.data?.counts);
    else if (push.unsubscribe) return false;
    return true;
  }

  connected(subs) {
    const comments = subs[COMMENTS];
    if (!comments) return false;
    if (comments.recovered) {
      this.position.epoch = comments.epoch;
      this.advance(comments.publications ?? []);
    } else {
      // Too much was missed to be sent after. We are live from here on; read the latest before it.
      this.position = { offset: comments.offset ?? 0, epoch: comments.epoch };
      clear();
      load().catch(() => this.source.onerror());
    }
    this.failures = 0;
    tellState("live", "Live");
    countReaders();
    ask("discussion/votes").then(counted, () => {});
    return true;
  }

  advance(publications) {
    for (const { offset } of publications) this.position.offset = offset ?? this.position.offset;
    arrived(publications);
  }
}

/** Codes after which the server does not want to see us again. */
const isFinal = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

const line = new Line();
$("retry").addEventListener("click", () => line.hurry());
addEventListener("online", () => line.hurry());
document.addEventListener("visibilitychange", () => document.hidden || line.hurry());
// A page put aside by the browser keeps no line open; shown again, it comes back from where it was.
addEventListener("pagehide", () => line.source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) line.source?.onerror(); });

tellLeft();
line.run();
