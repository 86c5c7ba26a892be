"use strict";
// A client of the Centrifuge protocol v2 (JSON), no more than this page needs, and the page itself.
const ROOM = "chat:lobby";
const BACKOFF_MS = { first: 150, most: 3000 };
const REPLY_TIMEOUT_MS = 10000;
const PRESENCE_EVERY_MS = 20000;
const at = (id) => document.getElementById(id);

class Client {
  constructor(user, on) {
    Object.assign(this, { user, on, urls: [location.origin], turn: 0, tries: 0, number: 0 });
    this.calls = new Map();
    this.positions = {}; // channel → {epoch, offset}: what has been seen of it
  }

  connect() {
    this.on.state("connecting");
    const url = this.urls[this.turn % this.urls.length];
    this.url = url;
    const socket = new WebSocket(url.replace(/^http/, "ws") + "/connection/websocket");
    this.socket = socket;
    this.alive(10);
    socket.onopen = () => this.greet();
    socket.onmessage = (event) => {
      this.alive(this.ping);
      event.data.split("\n").filter(Boolean).forEach((line) => this.hear(JSON.parse(line)));
    };
    socket.onclose = (event) => { if (socket === this.socket) this.closed(event); };
  }

  async greet() {
    const inbox = "#" + this.user;
    const subs = this.positions[inbox] ? { [inbox]: { recover: true, ...this.positions[inbox] } } : {};
    try {
      const hello = await this.call("connect", { data: { user: this.user }, name: "demo", subs });
      Object.assign(this, { tries: 0, ping: hello.ping, pong: hello.pong });
      this.on.connected(hello);
      for (const [channel, reply] of Object.entries(hello.subs || {})) this.subscribed(channel, reply);
      const known = this.positions[ROOM];
      const again = known ? { recover: true, ...known } : {};
      this.subscribed(ROOM, await this.call("subscribe", { channel: ROOM, ...again }));
    } catch (error) {
      this.on.note(error.message, true);
      this.socket.close();
    }
  }

  subscribed(channel, reply) {
    const missed = reply.publications || [];
    missed.forEach((publication) => this.on.publication(channel, publication));
    if (reply.recoverable) this.positions[channel] = { epoch: reply.epoch, offset: reply.offset || 0 };
    this.on.subscribed(channel, reply, missed.length);
  }

  hear(reply) {
    if (reply.id) {
      const call = this.calls.get(reply.id);
      this.calls.delete(reply.id);
      if (!call) return;
      if (reply.error) call.fail(new Error(`${reply.error.message} (${reply.error.code})`));
      else call.done(reply[call.method] || {});
    } else if (reply.push) {
      this.pushed(reply.push);
    } else if (this.pong) {
      this.socket.send("{}");
    }
  }

  pushed({ channel, pub, join, leave, subscribe, unsubscribe, disconnect }) {
    if (pub) {
      const seen = this.positions[channel];
      if (seen && pub.offset) this.positions[channel] = { epoch: pub.epoch || seen.epoch, offset: pub.offset };
      this.on.publication(channel, pub);
    } else if (subscribe?.recoverable) {
      this.positions[channel] = { epoch: subscribe.epoch, offset: subscribe.offset || 0 };
    } else if (join || leave) {
      this.on.presence(channel, (join || leave).info, Boolean(join));
    } else if (unsubscribe && unsubscribe.code >= 2500) {
      const again = { channel, recover: Boolean(this.positions[channel]), ...this.positions[channel] };
      this.call("subscribe", again).then((reply) => this.subscribed(channel, reply), () => this.socket.close());
    } else if (disconnect) {
      this.socket.close();
    }
  }

  call(method, request) {
    const id = ++this.number;
    const answer = new Promise((done, fail) => {
      this.calls.set(id, { method, done, fail });
      setTimeout(() => this.calls.delete(id) && fail(new Error("no answer")), REPLY_TIMEOUT_MS);
    });
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ id, [method]: request }));
    return answer;
  }

  // Pings must come within their interval, or the connection counts as dead.
  alive(seconds) {
    clearTimeout(this.watch);
    if (seconds) this.watch = setTimeout(() => this.lose(), (seconds + 8) * 1000);
  }

  lose() {
    const socket = this.socket;
    socket.onclose = null;
    socket.close();
    this.closed({ code: 0, reason: "no ping" });
  }

  closed({ code, reason }) {
    clearTimeout(this.watch);
    for (const call of this.calls.values()) call.fail(new Error("the connection is lost"));
    this.calls.clear();
    if (code >= 3500 && code < 4000) return this.on.state("ended", `${reason} (${code})`);
    this.turn += 1;
    const most = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.tries++);
    this.on.state("waiting");
    setTimeout(() => this.connect(), most * (0.5 + Math.random() / 2));
  }
}

const online = new Map(); // connection → user
const sent = new Map(); // text id → time
let client, me;

function show(kind, from, text, time, direct) {
  const item = document.createElement("li");
  item.className = "message" + (from === me ? " mine" : "") + (direct ? " direct" : "");
  Object.assign(item.dataset, { kind, from });
  const name = document.createElement("b");
  name.textContent = direct ? `${from} → ${direct}` : from;
  const clock = document.createElement("time");
  clock.textContent = (time ? new Date(time) : new Date()).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  item.append(name, text, clock);
  append(item);
}

function note(text, lost) {
  const item = document.createElement("li");
  item.className = "note" + (lost ? " lost" : "");
  item.textContent = text;
  append(item);
}

function append(item) {
  const list = at("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.append(item);
  while (list.children.length > 500) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function showOnline() {
  const users = [...new Set(online.values())].sort();
  at("count").textContent = users.length || "";
  at("users").replaceChildren(...users.filter((user) => user !== me).map((user) => new Option(user)));
  at("online").replaceChildren(...users.map((user) => {
    const item = document.createElement("li");
    const pick = document.createElement("button");
    item.dataset.user = user;
    pick.textContent = user === me ? `${user} (you)` : user;
    pick.onclick = () => { at("dm-to").value = user === me ? "" : user; at("text").focus(); };
    item.append(pick);
    return item;
  }));
}

async function askPresence() {
  if (at("status").dataset.state !== "connected") return;
  const { presence } = await client.call("presence", { channel: ROOM });
  online.clear();
  for (const info of Object.values(presence || {})) online.set(info.client, info.user);
  showOnline();
}

async function askNodes() {
  const nodes = await (await fetch(client.url + "/demo/nodes")).json();
  client.urls = [location.origin, ...nodes.map((node) => node.url).filter((url) => url !== location.origin)];
  nodes.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  at("nodes").replaceChildren(...nodes.map((node) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    item.className = node.state === "up" ? "" : "away";
    if (node.name === at("node").textContent) item.setAttribute("aria-current", "true");
    Object.assign(link, { href: node.url + "/demo", textContent: node.name, target: "_blank", rel: "noopener" });
    item.append(link, node.state === "up" ? "" : ` (${node.state})`);
    return item;
  }));
}

const events = {
  state(state, why) {
    const words = { connecting: "connecting …", waiting: "reconnecting …", ended: `refused: ${why}` };
    at("status").dataset.state = state;
    at("status").textContent = words[state];
    at("send").disabled = true;
  },
  connected(hello) {
    const before = at("node").textContent;
    at("node").textContent = hello.node || "?";
    if (before !== "–" && before !== hello.node) note(`Moved from node ${before} to ${hello.node}.`);
    at("status").dataset.state = "connected";
    at("status").textContent = "connected";
    at("send").disabled = false;
    askNodes().catch(() => {});
  },
  subscribed(channel, reply, missed) {
    if (reply.was_recovering && !reply.recovered) {
      note(channel === ROOM ? "Some messages of the room may be missing." : "Some direct messages may be missing.", true);
    } else if (missed && reply.was_recovering) {
      note(`Caught up: ${missed} missed while away.`);
    }
    if (channel !== ROOM) return;
    askPresence().catch(() => {});
    if (reply.was_recovering) return;
    client.call("history", { channel, limit: 50 }).then(({ publications }) => {
      (publications || []).forEach((publication) => events.publication(channel, publication));
    }, () => {});
  },
  publication(channel, { data, info, time }) {
    const from = info?.user || "server";
    if (channel === ROOM) show("room", from, String(data?.text ?? JSON.stringify(data)), time ?? data?.time);
    else show("direct", from, String(data?.text ?? JSON.stringify(data)), time ?? data?.time, "you");
    const begun = sent.get(data?.id);
    if (begun) at("latency").textContent = `there and back in ${(performance.now() - begun).toFixed(1)} ms`;
    sent.delete(data?.id);
  },
  presence(channel, info, here) {
    if (channel !== ROOM) return;
    const before = new Set(online.values());
    if (here) online.set(info.client, info.user);
    else online.delete(info.client);
    const after = new Set(online.values());
    if (info.user !== me && before.has(info.user) !== after.has(info.user)) note(`${info.user} ${here ? "came" : "left"}`);
    showOnline();
  },
  note,
};

at("compose").onsubmit = async (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  const to = at("dm-to").value.trim();
  if (!text) return;
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  at("text").value = "";
  sent.set(id, performance.now());
  try {
    await client.call("publish", { channel: to ? "#" + to : ROOM, data: { text, id, time: Date.now() } });
    if (to && to !== me) show("direct", me, text, Date.now(), to);
  } catch (error) {
    note(`Not sent, as far as is known: “${text}”: ${error.message}`, true);
  }
};

at("login").onsubmit = (event) => {
  event.preventDefault();
  me = at("user").value.trim();
  at("login").hidden = true;
  at("room").hidden = at("where").hidden = false;
  at("me").textContent = me;
  document.title = `${me} · Orbweb demo`;
  at("text").focus();
  client = new Client(me, events);
  client.connect();
  setInterval(() => askPresence().catch(() => {}), PRESENCE_EVERY_MS);
  setInterval(() => askNodes().catch(() => {}), PRESENCE_EVERY_MS / 4);
};

const given = new URLSearchParams(location.search).get("user");
if (given) {
  at("user").value = given;
  at("login").requestSubmit();
}
