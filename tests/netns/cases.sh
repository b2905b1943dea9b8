# cases.sh: the cases of run. Sourced by bash; each runs in a subshell with -e,
# its own hosts and $NET_DIR. Ours is host "ours", the peer host "peer".

L=192.0.2.1 R=192.0.2.2

two_hosts() {
	net_host ours peer
	net_link ours $L/24 peer $R/24 wire wire
	net_inner ours 10.1.0.1/24
	net_inner peer 10.2.0.1/24
	ip -n "$NET_ID-ours" route add 10.2.0.0/24 via $R src 10.1.0.1
	ip -n "$NET_ID-peer" route add 10.1.0.0/24 via $L src 10.2.0.1
}

# ours_conf VERSION IKE ESP [more lines]
ours_start() {
	orthrus_start ours "
conn net
	authby=psk
	keyexchange=ikev$1
	left=${OURS:-$L}
	right=$R
	leftid=ours.example
	rightid=peer.example
${OURS_NETS-	leftsubnet=10.1.0.0/24
	rightsubnet=10.2.0.0/24}
	ike=$2
	esp=$3
	auto=add
${4:-}
" "@ours.example @peer.example : PSK \"$NET_PSK\""
}

# peer_start VERSION IKE ESP [more connection lines] [more child lines]
peer_start() {
	strongswan_start peer "
connections {
  net {
    version = $1
    local_addrs = $R
    remote_addrs = ${OURS_SEEN:-$L}
    proposals = $2
    ${4:-}
    local {
      auth = psk
      id = peer.example
    }
    remote {
      auth = psk
      id = ours.example
    }
    children {
      net {
        ${PEER_NETS-local_ts = 10.2.0.0/24
        remote_ts = 10.1.0.0/24}
        esp_proposals = $3
        mode = tunnel
        ${5:-}
      }
    }
  }
}
secrets {
  ike-1 {
    id-1 = ours.example
    id-2 = peer.example
    secret = \"$NET_PSK\"
  }
}"
}

# Numbers of things established on either side.
ours_children() {
	orthrus ours list sas --json | grep -c '"state": *"up"' || true
}
peer_children() {
	swan peer --list-sas | grep -c 'INSTALLED' || true
}
ours_has() { [ "$(ours_children)" = "$1" ]; }
peer_has() { [ "$(peer_children)" = "$1" ]; }
both_have() { ours_has "$1" && peer_has "$1"; }
ours_spis() { orthrus ours list sas --json | grep -o '"spi_in": *"[^"]*"'; }
spis_differ() { [ "$(ours_spis)" != "$1" ]; }

pings() {
	net_until 6 net_ping ours 10.1.0.1 10.2.0.1 1
	net_ping ours 10.1.0.1 10.2.0.1
	net_ping peer 10.2.0.1 10.1.0.1
}

# Nothing but ESP leaves either host while a ping crosses. (What comes in is
# seen once more when XFRM has decrypted it.)
wire_is_clean() {
	local host
	for host in ours peer; do
		ns $host timeout $((3 + 2 * NET_SLOW)) tcpdump -l -n -Q out \
		    -i wire >"$NET_DIR/wire.$host" 2>"$NET_DIR/wire.$host.err" &
	done
	net_until 5 grep -q listening "$NET_DIR/wire.ours.err"
	net_until 5 grep -q listening "$NET_DIR/wire.peer.err"
	net_ping ours 10.1.0.1 10.2.0.1
	net_until 5 grep -qE 'ESP\(|UDP-encap' "$NET_DIR/wire.ours"
	net_until 5 grep -qE 'ESP\(|UDP-encap' "$NET_DIR/wire.peer"
	! grep -E '10\.[12]\.0\.1' "$NET_DIR/wire.ours" "$NET_DIR/wire.peer"
}

up() { # VERSION ROLE IKE ESP [ours more] [peer more] [peer child more]
	two_hosts
	peer_start "$1" "$3" "$4" "${6:-}" "${7:-}"
	ours_start "$1" "$3" "$4" "${5:-}"
	if [ "$2" = initiator ]; then
		orthrus ours up net
	else
		swan peer --initiate --child net
	fi
	net_until 5 both_have 1
	pings
}

rekey_child_by_peer() {
	local before
	before=$(ours_spis)
	swan peer --rekey --child net
	net_until 8 spis_differ "$before"
	net_until 8 ours_has 1
	pings
}

peer_rekeys_ike() { # VERSION
	swan peer --rekey --ike net
	sleep 2
	net_until 8 both_have 1
	pings
}

full() { # VERSION ROLE IKE ESP [ours more]
	up "$@"
	wire_is_clean
	rekey_child_by_peer
	peer_rekeys_ike "$1"
	if [ "$2" = initiator ]; then
		orthrus ours down net
	else
		swan peer --terminate --ike net
	fi
	net_until 8 both_have 0
	# And once more, the other way round.
	if [ "$2" = initiator ]; then
		swan peer --initiate --child net
	else
		orthrus ours up net
	fi
	net_until 5 both_have 1
	pings
}

case_v2_initiator() { full 2 initiator aes256-sha256-x25519 aes256-sha256; }
case_v2_responder() { full 2 responder aes256-sha256-x25519 aes256-sha256; }
case_v1_initiator() { full 1 initiator aes256-sha256-modp2048 aes256-sha256; }
case_v1_responder() { full 1 responder aes256-sha256-modp2048 aes256-sha256; }
case_v2_gcm_pfs() {
	full 2 initiator aes128gcm16-prfsha256-ecp256 aes128gcm16-ecp256
}
case_v2_chacha() {
	full 2 responder chacha20poly1305-prfsha512-ecp384 \
	    chacha20poly1305-x25519
}
case_v1_pfs_ecp() { full 1 initiator aes128-sha512-ecp256 aes128-sha512-ecp256; }
case_v1_legacy() { full 1 responder 3des-sha1-modp1024 3des-sha1; }

# Several subnets a side. IKEv1 makes a child of each pair, and strongSwan can
# follow three Quick Modes at a time.
subnets() { # VERSION ROLE
	local pair children=4
	OURS_NETS="	leftsubnet=10.1.0.0/24,10.3.0.0/24
	rightsubnet=10.2.0.0/24,10.4.0.0/24"
	PEER_NETS="local_ts = 10.2.0.0/24
        remote_ts = 10.1.0.0/24"
	if [ "$1" = 2 ]; then
		children=1
		PEER_NETS="local_ts = 10.2.0.0/24,10.4.0.0/24
        remote_ts = 10.1.0.0/24,10.3.0.0/24"
	fi
	two_hosts
	net_inner ours 10.3.0.1/24
	net_inner peer 10.4.0.1/24
	ip -n "$NET_ID-ours" route add 10.4.0.0/24 via $R src 10.1.0.1
	ip -n "$NET_ID-peer" route add 10.3.0.0/24 via $L src 10.2.0.1
	peer_start "$1" aes128-sha256-x25519 aes128-sha256 "" \
	    "$([ "$1" = 2 ] || more_children 1-4 3-2 3-4)"
	ours_start "$1" aes128-sha256-x25519 aes128-sha256
	if [ "$2" = initiator ]; then
		orthrus ours up net
	else
		for pair in "" 14 32 34; do
			[ $children = 4 ] || [ -z "$pair" ] || continue
			swan peer --initiate --child "net$pair"
		done
	fi
	net_until 8 both_have $children
	for pair in 1-2 1-4 3-2 3-4; do
		net_until 5 net_ping ours 10.${pair%-*}.0.1 10.${pair#*-}.0.1 1
		net_ping peer 10.${pair#*-}.0.1 10.${pair%-*}.0.1
	done
	orthrus ours down net
	net_until 8 both_have 0
}
more_children() { # OURS-PEER...: children of their own, named after them
	local pair
	for pair in "$@"; do
		printf '}\nnet%s {\nlocal_ts = 10.%s.0.0/24\n' \
		    "${pair/-/}" "${pair#*-}"
		printf 'remote_ts = 10.%s.0.0/24\n' "${pair%-*}"
		printf 'esp_proposals = aes128-sha256\n'
	done
}
case_v1_subnets() { subnets 1 initiator; }
case_v1_subnets_responder() { subnets 1 responder; }
case_v2_subnets() { subnets 2 responder; }

# INVALID_KE_PAYLOAD: the group that we try first is not the peer's.
case_v2_other_group() {
	two_hosts
	ours_start 2 aes128-sha256-ecp256-modp2048 \
	    aes128-sha256-ecp256-modp2048
	peer_start 2 aes128-sha256-modp2048 aes128-sha256-modp2048
	orthrus ours up net
	net_until 5 both_have 1
	grep -q INVAL_KE "$NET_DIR/peer/charon.log"
	pings
	rekey_child_by_peer
	peer_rekeys_ike 2
}

# Both ends renew at the same time: nothing is lost, but for a packet that was on
# its way when strongSwan, which deletes an old child at once, did so.
at_once() { # VERSION
	two_hosts
	peer_start "$1" aes128-sha256-x25519 aes128-sha256 \
	    "$([ "$1" = 2 ] && echo rekey_time || echo reauth_time) = 14s
    over_time = 8s
    rand_time = 0s" "rekey_time = 10s
        life_time = 16s
        rand_time = 0s"
	ours_start "$1" aes128-sha256-x25519 aes128-sha256 "	ikelifetime=20s
	lifetime=16s
	margintime=6s
	rekeyfuzz=0%"
	orthrus ours up net
	net_until 6 net_ping ours 10.1.0.1 10.2.0.1 1
	ns ours ping -q -c 700 -i 0.06 -W 2 -I 10.1.0.1 10.2.0.1 \
	    >"$NET_DIR/ping" || true
	cat "$NET_DIR/ping"
	[ "$(awk '/packets transmitted/ { print $1 - $4 }' "$NET_DIR/ping")" -le 2 ]
	pings
}
case_v2_at_once() { at_once 2; }
case_v1_at_once() { at_once 1; }

# Our own rekeying: short lifetimes.
our_rekeys() { # VERSION ROLE
	local before
	up "$1" "$2" aes128-sha256-ecp256 aes128-sha256 "	ikelifetime=50s
	lifetime=30s
	margintime=12s
	rekeyfuzz=0%"
	before=$(ours_spis)
	net_until 26 spis_differ "$before"
	net_until 8 both_have 1
	pings
	before=$(ours_spis)
	sleep 22
	net_until 10 both_have 1
	pings
}
case_v2_our_rekey() { our_rekeys 2 initiator; }
case_v1_our_rekey() { our_rekeys 1 initiator; }

# The packet that asks for an SA is not lost, and a TUN device that somebody
# removes comes back with its SAs negotiated anew.
case_v2_userland_route() {
	DATA_PLANE=userland
	two_hosts
	peer_start 2 aes128-sha256-x25519 aes128-sha256
	ours_start 2 aes128-sha256-x25519 aes128-sha256 "	auto=route"
	net_until 5 grep -q 'net: routed' "$NET_DIR/ours/orthrus.log"
	ns ours ping -q -c 1 -W $((4 * NET_SLOW)) -I 10.1.0.1 10.2.0.1
	net_until 5 both_have 1
	ns ours ip link del orthrus0
	net_until 5 grep -q 'device had been removed' "$NET_DIR/ours/orthrus.log"
	net_until 5 both_have 1
	pings
}

# Others meddle with our rules and our device.
has_rules() { ns ours ip rule | grep -q 4500 && ns ours ip -6 rule | grep -q 4500; }
has_source() { ns ours ip route show table 4500 | grep -q '10.2.0.0/24.*src 10.1.0.1'; }
no_rules() { ! ns ours ip rule | grep -q 4500; }
case_v1_userland_meddled_with() {
	DATA_PLANE=userland
	two_hosts
	peer_start 1 aes128-sha256-modp2048 aes128-sha256
	ours_start 1 aes128-sha256-modp2048 aes128-sha256
	orthrus ours up net
	pings
	ns ours ip rule del priority 4500
	ns ours ip -6 rule del priority 4500
	net_until 5 has_rules
	net_until 2 has_source
	pings
	ns ours ip link set orthrus0 down
	ns ours ip link set orthrus0 up
	net_until 5 ns ours ping -q -c 1 -W 1 -I 10.1.0.1 10.2.0.1
	net_until 3 has_source
	ip netns pids "$NET_ID-ours" | xargs kill -TERM
	net_until 10 no_rules
}

# A dead peer is found and cleared; a living one's questions are answered.
dead_peer() { # VERSION
	up "$1" initiator aes128-sha256-x25519 aes128-sha256 "	dpdaction=clear
	dpddelay=2s
	dpdtimeout=8s" "dpd_delay = 2s
    dpd_timeout = 8s"
	sleep 7
	both_have 1
	pings
	kill -9 "$(cat "$NET_DIR/peer/charon.pid" 2>/dev/null ||
	    ip netns pids "$NET_ID-peer" | head -n 1)"
	net_until "$2" ours_has 0
}
case_v2_dead_peer() { dead_peer 2 220; }
case_v1_dead_peer() { dead_peer 1 40; }

# We are behind NAT; the peer sees 192.0.2.254.
nat_hosts() {
	net_host ours nat peer
	net_link ours 172.16.0.2/24 nat 172.16.0.1/24 wire inside
	net_link nat 192.0.2.254/24 peer $R/24 outside wire
	net_inner ours 10.1.0.1/24
	net_inner peer 10.2.0.1/24
	ip -n "$NET_ID-ours" route add default via 172.16.0.1
	ip -n "$NET_ID-ours" route add 10.2.0.0/24 via 172.16.0.1 src 10.1.0.1
	ip -n "$NET_ID-peer" route add 10.1.0.0/24 via 192.0.2.254 src 10.2.0.1
	ns nat nft -f - <<-X
		table ip nat {
			chain post {
				type nat hook postrouting priority 100
				oifname outside masquerade random
			}
		}
	X
}

behind_nat() { # VERSION
	nat_hosts
	OURS=172.16.0.2 OURS_SEEN=%any
	peer_start "$1" aes128-sha256-x25519 aes128-sha256
	ours_start "$1" aes128-sha256-x25519 aes128-sha256
	orthrus ours up net
	net_until 5 both_have 1
	pings
	rekey_child_by_peer
	peer_rekeys_ike "$1"
	orthrus ours down net
	net_until 8 both_have 0
}
case_v2_behind_nat() { behind_nat 2; }
case_v1_behind_nat() { behind_nat 1; }

# Two peers of one connection behind one NAT, with several selectors each: their
# SAs have the same outer addresses, and each one's traffic takes its own.
behind_one_nat() { # HOST NUMBER FIRST-NET SECOND-NET
	net_host "$1"
	net_link nat 172.16.$2.1/24 "$1" 172.16.$2.2/24 inside$2 wire
	net_inner "$1" 10.2.$3.1/24
	net_inner "$1" 10.2.$4.1/24
	ip -n "$NET_ID-$1" route add default via 172.16.$2.1
	orthrus_start "$1" "
conn net
	authby=psk
	keyexchange=ikev2
	left=172.16.$2.2
	right=$L
	leftid=$1.example
	rightid=ours.example
	leftsubnet=10.2.$3.0/24,10.2.$4.0/24
	rightsubnet=10.1.0.0/24,10.3.0.0/24
	ike=aes128-sha256-x25519
	esp=aes128gcm16
	auto=add
" "@ours.example @$1.example : PSK \"$NET_PSK\""
	orthrus "$1" up net
}
every_way() { # HOST FIRST-NET SECOND-NET
	local here there
	for here in 10.1.0.1 10.3.0.1; do
		for there in 10.2.$2.1 10.2.$3.1; do
			net_ping "$1" "$there" "$here" 2
			net_ping ours "$here" "$there" 2
		done
	done
}
case_v2_peers_behind_nat() {
	local before reqids
	net_host ours nat
	net_link ours $L/24 nat 192.0.2.254/24 wire outside
	net_inner ours 10.1.0.1/24
	net_inner ours 10.3.0.1/24
	ip -n "$NET_ID-ours" route add 10.2.0.0/16 via 192.0.2.254
	ns nat nft -f - <<-X
		table ip nat {
			chain post {
				type nat hook postrouting priority 100
				oifname outside masquerade random
			}
		}
	X
	orthrus_start ours "
conn net
	authby=psk
	keyexchange=ikev2
	left=$L
	right=%any
	leftid=ours.example
	rightid=%any
	leftsubnet=10.1.0.0/24,10.3.0.0/24
	rightsubnet=10.2.0.0/16
	ike=aes128-sha256-x25519
	esp=aes128gcm16
	auto=add
	lifetime=60s
	margintime=30s
	rekeyfuzz=0%
" "@ours.example @peer.example : PSK \"$NET_PSK\"
@ours.example @other.example : PSK \"$NET_PSK\""
	behind_one_nat peer 1 1 2
	behind_one_nat other 2 3 4
	net_until 5 ours_has 2
	every_way peer 1 2
	every_way other 3 4
	every_way peer 1 2
	# The reqids stay while the SAs are renewed.
	before=$(ours_spis)
	reqids=$(ours_reqids)
	[ "$(echo "$reqids" | wc -l)" = 2 ]
	net_until 60 none_of "$before"
	net_until 5 ours_has 2
	every_way other 3 4
	every_way peer 1 2
	[ "$(ours_reqids)" = "$reqids" ]
	orthrus other down net
	net_until 8 ours_has 1
	every_way peer 1 2
}
ours_reqids() {
	orthrus ours list sas --json | grep -o '"reqid": *[0-9]*' | sort -u
}
none_of() { # SPIS
	local spi
	for spi in $(echo "$1" | grep -o '"[^"]*"$'); do
		! ours_spis | grep -q "$spi" || return 1
	done
}

# A filter that makes host to host impossible is named.
case_v2_userland_rp_filter() {
	DATA_PLANE=userland
	two_hosts
	ns ours sh -c 'echo 1 >/proc/sys/net/ipv4/conf/wire/rp_filter'
	OURS_NETS=
	ours_start 2 aes128-sha256-x25519 aes128-sha256 "	auto=route"
	net_until 5 grep -q 'set net.ipv4.conf.wire.rp_filter to 2' \
	    "$NET_DIR/ours/orthrus.log"
}

# A router on the way takes no more than 1280 octets: both sides learn of it,
# with protocol 50 as well as with UDP.
path_mtu() { # [more]
	local size
	DATA_PLANE=userland
	net_host ours r peer
	net_link ours 2001:db8:1::1/64 r 2001:db8:1::fe/64 wire left
	net_link r 2001:db8:2::fe/64 peer 2001:db8:2::2/64 right wire
	ns r sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
	ip -n "$NET_ID-ours" route add default via 2001:db8:1::fe
	ip -n "$NET_ID-peer" route add default via 2001:db8:2::fe
	ip -n "$NET_ID-r" link set right mtu 1280
	ip -n "$NET_ID-peer" link set wire mtu 1280
	net_inner ours 10.1.0.1/24
	net_inner peer 10.2.0.1/24
	orthrus_start peer "
conn net
	authby=psk
	left=2001:db8:2::2
	right=2001:db8:1::1
	leftid=peer.example
	rightid=ours.example
	leftsubnet=10.2.0.0/24
	rightsubnet=10.1.0.0/24
	ike=aes128-sha256-x25519
	esp=aes128-sha256
	auto=add
" "@ours.example @peer.example : PSK \"$NET_PSK\""
	L=2001:db8:1::1 R=2001:db8:2::2
	ours_start 2 aes128-sha256-x25519 aes128-sha256 "${1:-}"
	orthrus ours up net
	for size in 1000 1250 1372; do
		net_until 10 ns ours ping -q -c 1 -W 1 -M want -s $size \
		    -I 10.1.0.1 10.2.0.1
	done
}
case_v2_userland_path_mtu() { path_mtu; }
case_v2_userland_path_mtu_udp() { path_mtu "	forceencaps=yes"; }

# Where the wire is slower than what comes, the process of the data plane waits
# for it, and its filter lets it.
case_v2_userland_slow_wire() {
	DATA_PLANE=userland
	two_hosts
	export ORTHRUS_SECCOMP=kill
	peer_start 2 aes128-sha256-x25519 aes128-sha256
	ours_start 2 aes128-sha256-x25519 aes128-sha256
	orthrus ours up net
	pings
	ns ours tc qdisc add dev wire root tbf rate 20mbit burst 16k limit 64m
	ns ours ping -q -l 30000 -c 30000 -s 1300 -w 2 -I 10.1.0.1 10.2.0.1 || :
	ns ours tc qdisc del dev wire root
	[ -z "$(grep 'esp was killed' "$NET_DIR/ours/orthrus.log")" ]
	pings
}

# The NAT takes another address and port for us: the peer, here Orthrus too,
# sends there as soon as it has had a packet from there.
userland_nat_moves() { # VERSION
	DATA_PLANE=userland
	nat_hosts
	orthrus_start peer "
conn net
	authby=psk
	keyexchange=ikev$1
	left=$R
	right=%any
	leftid=peer.example
	rightid=ours.example
	leftsubnet=10.2.0.0/24
	rightsubnet=10.1.0.0/24
	ike=aes128-sha256-x25519
	esp=aes128-sha256
	auto=add
" "@ours.example @peer.example : PSK \"$NET_PSK\""
	OURS=172.16.0.2
	ours_start "$1" aes128-sha256-x25519 aes128-sha256
	orthrus ours up net
	pings
	ip -n "$NET_ID-nat" addr del 192.0.2.254/24 dev outside
	ip -n "$NET_ID-nat" addr add 192.0.2.253/24 dev outside
	net_until 4 net_ping ours 10.1.0.1 10.2.0.1 1
	net_ping peer 10.2.0.1 10.1.0.1
	grep -qE 'NAT has changed|192.0.2.253' "$NET_DIR/peer/orthrus.log"
	! grep -q 'refused to' "$NET_DIR/peer/orthrus.log"
}
case_v2_userland_nat_moves() { userland_nat_moves 2; }
case_v1_userland_nat_moves() { userland_nat_moves 1; }

# A wrong PSK is refused, and said so, on either side.
wrong_psk() { # VERSION
	two_hosts
	peer_start "$1" aes128-sha256-x25519 aes128-sha256
	NET_PSK=another-psk-0123456789-abcdefgh
	ours_start "$1" aes128-sha256-x25519 aes128-sha256
	! timeout 60 "$ORTHRUS" --control "$NET_DIR/ours/orthrus.ctl" up net
	ours_has 0
}
case_v2_wrong_psk() { wrong_psk 2; }

# What does not fit is explained.
case_v2_explained() {
	two_hosts
	peer_start 2 aes256-sha512-modp3072 aes128-sha256
	ours_start 2 aes128-sha256-x25519 aes128-sha256
	! swan peer --initiate --child net --timeout 10
	grep -q 'modp3072' "$NET_DIR/ours/orthrus.log"
	grep -q 'curve25519' "$NET_DIR/ours/orthrus.log"
}
