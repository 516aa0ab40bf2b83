// Run client.mjs on one of the stacks for Node: node node.mjs PACKAGES STACK URL
// PACKAGES is the directory of `just setup-interop`, URL that of the control server.

import { createRequire } from "node:module";
import { resolve } from "node:path";
import { run } from "./client.mjs";

const [packages, stack, controlUrl] = process.argv.slice(2);
const load = createRequire(resolve(packages, "package.json"));
const modules = { werift: "werift", "node-datachannel": "node-datachannel/polyfill", wrtc: "@roamhq/wrtc" };
const { RTCPeerConnection } = load(modules[stack]);

await run({ RTCPeerConnection, WebSocket: load("ws") }, controlUrl);
process.exit(0); // some stacks have threads that keep the process alive
