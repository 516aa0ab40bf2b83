// One end of a data channel of node-datachannel, with the lines of sdpx/bench/data_peer.py: node data_peer.mjs PACKAGES

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline";

const { PeerConnection, cleanup } = createRequire(resolve(process.argv[2], "package.json"))("node-datachannel");
const HIGH_WATER = 1024 * 1024;
const WARM_UP = 0.25;
const SAMPLE = 50; // ms

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => JSON.parse((await lines.next()).value || "null");
const write = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const memory = () => 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "latin1"))[1]);
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

const job = await next();
const pc = new PeerConnection("bench", { iceServers: [], maxMessageSize: 262_144 });
const result = { bytes: 0, seconds: 0, cpu: 0, busy: 0, memory: 0, path: {} };
let ends, began, before, bytes = 0;

function note(size) {
  const now = performance.now();
  ends ??= now + job.seconds * 1000;
  if (now >= ends) return false;
  if (began === undefined) {
    if (now >= ends - (1 - WARM_UP) * job.seconds * 1000) [began, before] = [now, cpu()];
    return true;
  }
  bytes += size;
  if (now - began - result.seconds * 1000 > SAMPLE) {
    const seconds = (now - began) / 1000;
    Object.assign(result, { bytes, seconds, cpu: cpu() - before, memory: memory() });
    result.busy = result.cpu / seconds;
  }
  return true;
}

async function described() {
  await new Promise((done) => {
    const check = () => pc.gatheringState() === "complete" && pc.localDescription() && done();
    pc.onGatheringStateChange(check);
    check();
  });
  write(pc.localDescription().sdp);
}

async function send(channel) {
  const message = Buffer.alloc(job.size, "x");
  const burst = Math.max(1, Math.floor(65_536 / job.size));
  channel.setBufferedAmountLowThreshold(HIGH_WATER / 4);
  let low = () => {};
  channel.onBufferedAmountLow(() => low());
  while (note(burst * job.size)) {
    for (let i = 0; i < burst; i++) channel.sendMessageBinary(message);
    if (channel.bufferedAmount() >= HIGH_WATER) {
      await new Promise((done) => {
        low = done;
        if (channel.bufferedAmount() <= HIGH_WATER / 4) done();
      });
    }
    await new Promise(setImmediate);
  }
  channel.sendMessageBinary(Buffer.from("end"));
}

function receive(channel) {
  return new Promise((done) => {
    channel.onMessage((message) => {
      if (message.length === 3) done();
      else note(message.length);
    });
  });
}

if (job.sends) {
  const channel = pc.createDataChannel("bench");
  const opened = new Promise((done) => channel.onOpen(done));
  await described();
  pc.setRemoteDescription(await next(), "answer");
  await opened;
  await send(channel);
} else {
  const received = new Promise((done) => pc.onDataChannel((channel) => done(receive(channel))));
  pc.setRemoteDescription(await next(), "offer");
  await described();
  await received;
}
write(result);
await lines.next();
pc.close();
cleanup();
process.exit(0);
