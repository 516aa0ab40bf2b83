// Run the foreign client on one of the stacks for Node: node node.mjs PACKAGES STACK STAGE
// PACKAGES is the folder that `just setup-interop` has installed into, STAGE the URL of the stage.

import { createRequire } from "node:module";
import { resolve } from "node:path";
import { work } from "./client.mjs";

const [packages, stack, stage] = process.argv.slice(2);
const load = createRequire(resolve(packages, "package.json"));
const modules = { werift: "werift", "node-datachannel": "node-datachannel/polyfill", wrtc: "@roamhq/wrtc" };
const { RTCPeerConnection } = load(modules[stack]);

await work({ RTCPeerConnection, WebSocket: load("ws") }, stage);
process.exit(0); // some stacks have threads that would keep it alive
