coproc PEER { exec sdpx peer --pair robot --wait 30 --once --expect message --within 60 --stdin json; }
pid=$PEER_PID
send() { jq -cn "$@" >&"${PEER[1]}"; }

send --arg text forward '{send: $text}'
while IFS= read -r line; do
  if [ "$(jq -r .event <<< "$line")" = channel_message ]; then
    echo "reply from the robot: $(jq -r .text <<< "$line")"
    send '{close: true}'
  fi
done <&"${PEER[0]}"
wait "$pid"
