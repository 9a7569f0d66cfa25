// Sessions of node-postgres for the session matrix. Says "ready" when they stand; a line on standard input says what has
// happened meanwhile ("begun", "attempted", "over"); at "over" each row is looked at, and the outcomes are printed as JSON.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createInterface } from "node:readline";
import pg from "pg";
import Cursor from "pg-cursor";

const config = JSON.parse(process.env.MATRIX_CONNECTION);
config.ssl = { rejectUnauthorized: false };

const heard = new Set();
const waiting = new Map();
function hear(word) {
  heard.add(word);
  (waiting.get(word) ?? []).forEach((resolve) => resolve());
}
function until(word) {
  if (heard.has(word)) return Promise.resolve();
  return new Promise((resolve) => waiting.set(word, [...(waiting.get(word) ?? []), resolve]));
}

async function connected() {
  const client = new pg.Client(config);
  await client.connect();
  return client;
}

async function assertOnGreen(client) {
  const { rows } = await client.query("SHOW server_version");
  assert.equal(rows[0].server_version, config.green);
}

// Each builds its session, and returns what looks at it afterwards.
const rows = {
  async "prepared statements"() {
    const client = await connected();
    const named = { name: "by id", text: "SELECT note, $2::int + 1 AS n FROM work WHERE id = $1" };
    assert.deepEqual((await client.query({ ...named, values: [998, 1] })).rows, [{ note: "row 998", n: 2 }]);
    return async () => {
      assert.deepEqual((await client.query({ ...named, values: [999, 41] })).rows, [{ note: "row 999", n: 42 }]);
      assert.deepEqual((await client.query("SELECT $1::text AS t", ["x"])).rows, [{ t: "x" }]);
      await assertOnGreen(client);
      await client.end();
    };
  },

  async "idle pool"() {
    const pool = new pg.Pool({ ...config, max: 4, idleTimeoutMillis: 0 });
    const errors = [];
    pool.on("error", (error) => errors.push(error));
    await Promise.all(Array.from({ length: 4 }, () => pool.query("SELECT pg_sleep(0.05)")));
    assert.equal(pool.totalCount, 4);
    return async () => {
      const found = await Promise.all(Array.from({ length: 4 }, () => pool.query("SHOW server_version")));
      assert.deepEqual(found.map(({ rows }) => rows[0].server_version), Array(4).fill(config.green));
      assert.deepEqual(errors, []);
      await pool.end();
    };
  },

  async "busy pool"() {
    const pool = new pg.Pool({ ...config, max: 3 });
    let count = 0;
    const work = async () => {
      await until("begun");
      while (!heard.has("over")) {
        const client = await pool.connect();
        await client.query("BEGIN");
        await client.query("INSERT INTO written VALUES ('node', $1)", [count++]);
        await client.query("COMMIT");
        client.release();
      }
    };
    const working = Promise.all([work(), work(), work()]);
    return async () => {
      await working;
      const { rows } = await pool.query("SELECT count(*)::int AS n FROM written WHERE by = 'node'");
      assert.equal(rows[0].n, count);
      await pool.end();
    };
  },

  async LISTEN() {
    const client = await connected();
    const payloads = [];
    client.on("notification", ({ payload }) => payloads.push(payload));
    await client.query("LISTEN node");
    const other = await connected();
    let last = 0;
    const notify = async () => {
      await until("begun");
      while (!heard.has("over")) await other.query("SELECT pg_notify('node', $1)", [String(++last)]);
    };
    const notifying = notify();
    return async () => {
      await notifying;
      await other.query("NOTIFY node, 'the last'");
      while (!payloads.includes("the last")) await once(client, "notification");
      assert.deepEqual(payloads, [...Array.from({ length: last }, (_, n) => String(n + 1)), "the last"]);
      await assertOnGreen(client);
      await Promise.all([client.end(), other.end()]);
    };
  },

  async "transaction and cursor"() {
    const client = await connected();
    await client.query("BEGIN");
    const cursor = client.query(new Cursor("SELECT generate_series(1, $1::int) AS n", [100]));
    assert.equal((await cursor.read(10)).length, 10);
    const ending = (async () => {
      await until("attempted");
      const rest = await cursor.read(1000);
      await cursor.close();
      await client.query("INSERT INTO written VALUES ('node cursor', 1)");
      await client.query("COMMIT");
      return rest.length;
    })();
    return async () => {
      assert.equal(await ending, 90);
      await assertOnGreen(client);
      await client.end();
    };
  },
};

const checks = [];
const outcomes = {};
for (const [name, build] of Object.entries(rows)) {
  try {
    checks.push([name, await build()]);
  } catch (error) {
    outcomes[name] = String(error.stack);
  }
}
createInterface({ input: process.stdin }).on("line", hear);
console.log("ready");
await until("over");
for (const [name, check] of checks) {
  try {
    await check();
    outcomes[name] = null;
  } catch (error) {
    outcomes[name] = String(error.stack);
  }
}
console.log(JSON.stringify(outcomes));
process.exit(0);
