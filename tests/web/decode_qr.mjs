// Print what the QR code in a PNG file says.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2]);
const { PNG } = require("pngjs"), jsQR = require("jsqr");
const { data, width, height } = PNG.sync.read(readFileSync(process.argv[3]));
process.stdout.write(jsQR(new Uint8ClampedArray(data), width, height)?.data ?? "");
