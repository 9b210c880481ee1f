#!/bin/bash
# The demo: a whole site on loopback, rehearsed with 20 simulated phones that register, call, text and write mail, and left running until
# Ctrl-C.
#
#   tests/demo.sh target/release/encamp
set -eu -o pipefail

encamp=$1
config=config/demo.toml
log=target/demo/encamp.log

# What an earlier demo has left is its own; this one begins with empty replicas.
rm -rf target/demo
mkdir -p target/demo

"$encamp" check --config "$config"
"$encamp" run --config "$config" >"$log" 2>&1 &
box=$!

# However this ends, the box is told to end, and waited for.
finish() {
    trap - EXIT INT TERM
    if kill -TERM "$box" 2>/dev/null; then
        wait "$box" || true
        echo "the box has ended; its log is $log"
    fi
}
trap finish EXIT
trap 'finish; exit 0' INT TERM

if ! "$encamp" status --wait 15 --config "$config" >/dev/null; then
    echo "the box did not come up:" >&2
    tail -n 20 "$log" >&2
    exit 1
fi
"$encamp" status --config "$config"
echo
echo "20 phones register, call, text and write mail: about 35 s, because some are away and the box waits for them"
"$encamp" rehearse --config "$config" --phones 20

# One of the phones that the rehearsal has left registered, for the examples below.
imsi=001019990000000

cat <<TEXT

The box is running. In another terminal:

  who is where          $encamp lookup $imsi --config $config
  the four replicas     $encamp replica status --config $config
  the map, in DNS       dig @127.0.0.1 -p 5354 NAPTR 0.0.1.0.1.9.9.9.0.0.0.0.0.0.0.imsi.gsm.example
                        dig @127.0.0.1 -p 5354 SRV _sip._udp.low.shard.gsm.example
                        $encamp zone dump --config $config
  a phone by hand       python3 tests/peers/obts.py register --imsi 001010000000001 --ki 00112233445566778899aabbccddeeff \\
                            --algorithm comp128v3 --listen 127.0.0.17:5062 --server 127.0.0.1:5064
                        (provision it first: $encamp subscriber add 001010000000001 --msisdn +15550001 2001 \\
                            --algorithm comp128v3 --ki 00112233445566778899aabbccddeeff --config $config)
  a call as a PBX       a softphone bound to 127.0.0.33:5060 that calls sip:2001@127.0.0.1 is answered 302 with the base station
  calls and texts       $encamp calls --config $config
                        $encamp queue --config $config
                        tail target/demo/calls.csv target/demo/texts.csv
  the life of a text    $encamp queue explain 1 --config $config
                        (the first column of texts.csv has all of their ids)
  a mail by hand        swaks --server 127.0.0.1:2525 --from carol@example.org --to 7001@sms.gsm.example --body "Hello"
                        (what phones write to her waits: only the rehearsal plays the mail server at 127.0.0.1:2526)
  rehearse it again     $encamp rehearse --config $config --phones 50

Ctrl-C ends it.
TEXT
wait "$box"
