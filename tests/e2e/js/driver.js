// One connection of the JavaScript SDK, driven by JSON lines: {"id", "do", …} comes in,
// {"id", "result"} or {"id", "error"} goes out, and what the SDK tells goes out as {"kind", …}.
// Started by harness/js_client.py; ends with its input.
import readline from 'node:readline';
import WebSocket from 'ws';
import { Centrifuge, UnauthorizedError } from 'centrifuge';

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n');
const event = (kind, fields) => say({ kind, ...fields });
let client;

const publication = (ctx, server) => ({
  channel: ctx.channel,
  data: ctx.data,
  offset: ctx.offset ?? 0,
  user: ctx.info?.user ?? null,
  tags: ctx.tags ?? {},
  server,
});

const subscribed = (ctx, server) => ({
  channel: ctx.channel,
  recoverable: ctx.recoverable,
  positioned: ctx.positioned,
  was_recovering: ctx.wasRecovering,
  recovered: ctx.recovered,
  offset: ctx.streamPosition?.offset ?? null,
  epoch: ctx.streamPosition?.epoch ?? null,
  data: ctx.data ?? null,
  server,
});

function watchClient() {
  client.on('connecting', (ctx) => event('connecting', { code: ctx.code, reason: ctx.reason }));
  client.on('connected', (ctx) => event('connected', { client: ctx.client, data: ctx.data ?? null }));
  client.on('disconnected', (ctx) => event('disconnected', { code: ctx.code, reason: ctx.reason }));
  client.on('error', (ctx) => event('error', { code: ctx.error.code, reason: ctx.error.message }));
  client.on('message', (ctx) => event('message', { data: ctx.data }));
  client.on('subscribed', (ctx) => event('subscribed', subscribed(ctx, true)));
  client.on('unsubscribed', (ctx) => event('unsubscribed', { channel: ctx.channel, code: null, server: true }));
  client.on('publication', (ctx) => event('publication', publication(ctx, true)));
}

function watchSubscription(sub) {
  const who = (ctx) => ({ channel: sub.channel, user: ctx.info.user, client: ctx.info.client });
  sub.on('subscribed', (ctx) => event('subscribed', subscribed(ctx, false)));
  sub.on('unsubscribed', (ctx) => event('unsubscribed', { channel: sub.channel, code: ctx.code, reason: ctx.reason }));
  sub.on('publication', (ctx) => event('publication', publication(ctx, false)));
  sub.on('join', (ctx) => event('join', who(ctx)));
  sub.on('leave', (ctx) => event('leave', who(ctx)));
  sub.on('error', (ctx) => event('error', { channel: sub.channel, code: ctx.error.code, reason: ctx.error.message }));
}

const verbs = {
  connect({ url, token, tokens, data }) {
    const options = {
      websocket: WebSocket,
      token,
      data: data ?? null,
      minReconnectDelay: 50,
      maxReconnectDelay: 500,
    };
    if (tokens.length > 0) {
      options.getToken = async () => {
        event('token asked', {});
        if (tokens.length === 0) throw new UnauthorizedError('no token left');
        return tokens.length > 1 ? tokens.shift() : tokens[0];
      };
    }
    client = new Centrifuge(url, options);
    watchClient();
    client.connect();
  },

  subscribe({ channel, options }) {
    let sub = client.getSubscription(channel);
    if (!sub) {
      sub = client.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500, ...options });
      watchSubscription(sub);
    }
    return new Promise((resolve, reject) => {
      const ended = (ctx) => { sub.off('subscribed', begun); reject({ code: ctx.code, message: ctx.reason }); };
      const begun = (ctx) => { sub.off('unsubscribed', ended); resolve(subscribed(ctx, false)); };
      sub.once('subscribed', begun);
      sub.once('unsubscribed', ended);
      sub.subscribe();
    });
  },

  unsubscribe({ channel }) {
    client.getSubscription(channel).unsubscribe();
  },

  async publish({ channel, data }) {
    await client.publish(channel, data);
  },

  async presence({ channel }) {
    const { clients } = await client.presence(channel);
    return Object.fromEntries(Object.entries(clients).map(([id, info]) => [id, info.user ?? '']));
  },

  async presence_stats({ channel }) {
    const { numClients, numUsers } = await client.presenceStats(channel);
    return { clients: numClients, users: numUsers };
  },

  async history({ channel, options }) {
    const { publications, offset, epoch } = await client.history(channel, options);
    return {
      publications: publications.map((pub) => publication({ ...pub, channel }, false)),
      offset,
      epoch,
    };
  },

  async rpc({ method, data }) {
    return (await client.rpc(method, data)).data;
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const { id, do: verb, ...rest } = JSON.parse(line);
  try {
    say({ id, result: (await verbs[verb](rest)) ?? null });
  } catch (error) {
    say({ id, error: { code: error.code ?? null, message: error.message ?? String(error) } });
  }
});
lines.on('close', () => {
  client?.disconnect();
  process.exit(0);
});
