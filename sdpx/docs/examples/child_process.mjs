import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const command = ["peer", "--pair", "robot", "--wait", "30", "--once", "--stdin", "json"];
command.push("--expect", "message", "--within", "60");
const peer = spawn("sdpx", command, { stdio: ["pipe", "pipe", "inherit"] });
const exited = new Promise((resolve) => peer.on("exit", resolve));
const send = (command) => peer.stdin.write(JSON.stringify(command) + "\n");

send({ send: "forward" });
for await (const line of createInterface({ input: peer.stdout })) {
  const event = JSON.parse(line);
  if (event.event === "channel_message") {
    console.log("reply from the robot:", event.text);
    send({ close: true });
  }
}
process.exitCode = await exited;
