"""Send a message to the peer `robot` and print the first reply."""

import json
import subprocess

command = ["sdpx", "peer", "--pair", "robot", "--wait", "30", "--once", "--stdin", "json"]
command += ["--expect", "message", "--within", "60"]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
    assert peer.stdin
    assert peer.stdout
    print(json.dumps({"send": "forward"}), file=peer.stdin, flush=True)
    for line in peer.stdout:
        event = json.loads(line)
        if event["event"] == "channel_message":
            print("reply from the robot:", event["text"])
            print(json.dumps({"close": True}), file=peer.stdin, flush=True)
raise SystemExit(peer.returncode)
