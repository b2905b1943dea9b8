# cases.sh: the cases of tests/netns/run on the kernel's XFRM, and those that
# only make sense there. Sourced by bash, in the virtual machine. LSW: where
# libreswan was unpacked.

. tests/netns/cases.sh

# What the kernel holds --------------------------------------------------------

states() { ip -n "$NET_ID-$1" xfrm state | grep -c '^src' || true; }
policies() { ip -n "$NET_ID-$1" xfrm policy | grep -c 'tmpl' || true; }
holds() { # HOST STATES POLICIES
	[ "$(states "$1")" = "$2" ] && [ "$(policies "$1")" = "$3" ]
}
packets() { # HOST: lines of SPI and packets, one for each SA
	ip -n "$NET_ID-$1" -s xfrm state | sed -n 's/.* spi \(0x[^ (]*\).*/\1/p
	    /limit:/d; s/.* \([0-9][0-9]*\)(packets).*/\1/p' | paste - -
}
carried() { # BEFORE AFTER: how many more, by the SAs that are still there
	printf '%s\n-\n%s\n' "$1" "$2" | awk '
		$1 == "-" { after = 1; next }
		after { n += $2 - before[$1]; next }
		{ before[$1] = $2 }
		END { print n + 0 }'
}
state_says() { ip -n "$NET_ID-$1" -d xfrm state | grep -E "$2"; }
no_states() { [ "$(states "$1")" = 0 ]; }
says_nowhere() { ! state_says "$@" >/dev/null; }

# A ping proves little: the SAs must have carried every packet of it.
eval "$(declare -f pings | sed '1s/pings/plain_pings/')"
counted() { # COMMAND...: which sends six pings or more from or to ours
	local spis before after
	spis=$(ours_spis)
	before=$(packets ours)
	"$@"
	after=$(packets ours)
	[ "$(ours_spis)" = "$spis" ] || return 0
	[ "$(carried "$before" "$after")" -ge 12 ] || {
		echo "too few packets: $before -- $after"
		return 1
	}
}
pings() {
	if [ "$DATA_PLANE" = userland ]; then
		plain_pings
	else
		counted plain_pings
	fi
}

# The same cases, and nothing of it may be left at the end.
eval "$(declare -f full | sed '1s/full/plain_full/')"
full() {
	plain_full "$@"
	orthrus ours down net
	net_until 8 holds ours 0 0
	net_until 8 holds peer 0 0
}

# Transport mode ---------------------------------------------------------------

transport() { # VERSION ROLE
	OURS_NETS="	type=transport"
	PEER_NETS="local_ts = dynamic
        remote_ts = dynamic"
	two_hosts
	peer_start "$1" aes128-sha256-ecp256 aes128gcm16 "" "mode = transport"
	ours_start "$1" aes128-sha256-ecp256 aes128gcm16
	if [ "$2" = initiator ]; then
		orthrus ours up net
	else
		swan peer --initiate --child net
	fi
	net_until 5 both_have 1
	state_says ours 'mode transport'
	says_nowhere ours 'mode tunnel'
	counted transport_pings
	orthrus ours down net
	net_until 8 holds ours 0 0
}
transport_pings() {
	net_ping ours $L $R
	net_ping peer $R $L
}
case_v2_transport() { transport 2 initiator; }
case_v2_transport_responder() { transport 2 responder; }
case_v1_transport() { transport 1 responder; }
case_v1_transport_initiator() { transport 1 initiator; }

# The peer is behind NAT, which then gives it another address and port ---------

nat_moves() { # VERSION
	net_host ours nat peer
	net_link ours $L/24 nat 192.0.2.254/24 wire outside
	net_link nat 172.16.0.1/24 peer 172.16.0.2/24 inside wire
	net_inner ours 10.1.0.1/24
	net_inner peer 10.2.0.1/24
	ip -n "$NET_ID-ours" route add 10.2.0.0/24 via 192.0.2.254 src 10.1.0.1
	ip -n "$NET_ID-peer" route add default via 172.16.0.1
	ip -n "$NET_ID-peer" route add 10.1.0.0/24 via 172.16.0.1 src 10.2.0.1
	ns nat nft -f - <<-X
		table ip nat {
			chain post {
				type nat hook postrouting priority 100
				oifname outside masquerade random
			}
		}
	X
	R=172.16.0.2
	peer_start "$1" aes128-sha256-ecp256 aes128gcm16 "mobike = no"
	R=%any
	ours_start "$1" aes128-sha256-ecp256 aes128gcm16
	swan peer --initiate --child net
	net_until 5 both_have 1
	pings
	state_says ours 'encap type espinudp'
	# Masquerading forgets what went by an address that has gone.
	ip -n "$NET_ID-nat" addr del 192.0.2.254/24 dev outside
	ip -n "$NET_ID-nat" addr add 192.0.2.253/24 dev outside
	ip -n "$NET_ID-ours" route replace 10.2.0.0/24 via 192.0.2.253 \
	    src 10.1.0.1
	net_until 10 net_ping peer 10.2.0.1 10.1.0.1 1
	pings
	state_says ours 'dst 192.0.2.253'
	ip -n "$NET_ID-ours" xfrm policy | grep 'dst 192.0.2.253'
	rekey_child_by_peer
	swan peer --terminate --ike net
	net_until 8 holds ours 0 0
}
case_v2_nat_moves() { nat_moves 2; }
case_v1_nat_moves() { nat_moves 1; }

# IPv6 outside, IPv4 or IPv6 inside --------------------------------------------

six_hosts() { # NET-OF-OURS NET-OF-PEER
	L=fd00::1 R=fd00::2
	net_host ours peer
	net_link ours $L/64 peer $R/64 wire wire
	net_inner ours "$1"
	net_inner peer "$2"
	net_until 10 ns ours ping -q -c 1 -W 1 $R
}
six() { # VERSION ROLE OURS PEER BITS
	OURS_NETS="	leftsubnet=${3}/$5
	rightsubnet=${4}/$5"
	PEER_NETS="local_ts = $4/$5
        remote_ts = $3/$5"
	six_hosts "$3/$5" "$4/$5"
	case $3 in
	*:*)
		ip -n "$NET_ID-ours" route add "$4/$5" via $R src "$3"
		ip -n "$NET_ID-peer" route add "$3/$5" via $L src "$4"
		;;
	*)
		ip -n "$NET_ID-ours" route add "$4/$5" via inet6 $R src "$3"
		ip -n "$NET_ID-peer" route add "$3/$5" via inet6 $L src "$4"
		;;
	esac
	peer_start "$1" aes128-sha256-ecp256 aes128gcm16
	ours_start "$1" aes128-sha256-ecp256 aes128gcm16
	if [ "$2" = initiator ]; then
		orthrus ours up net
	else
		swan peer --initiate --child net
	fi
	net_until 5 both_have 1
	counted six_pings "$3" "$4"
	orthrus ours down net
	net_until 8 holds ours 0 0
}
six_pings() {
	net_ping ours "$1" "$2"
	net_ping peer "$2" "$1"
}
case_v2_six_over_six() { six 2 initiator fd01::1 fd02::1 64; }
case_v2_four_over_six() { six 2 responder 10.1.0.1 10.2.0.1 32; }
case_v1_four_over_six() { six 1 initiator 10.1.0.1 10.2.0.1 32; }

# What is in an SA -------------------------------------------------------------

esn() { # VERSION ROLE
	up "$1" "$2" aes128-sha256-ecp256 aes128gcm16-esn \
	    "	replay_window=100"
	state_says ours 'flag.* esn'
	state_says ours 'replay_window 100,'
}
case_v2_esn() { esn 2 initiator; }
case_v2_esn_responder() { esn 2 responder; }

window() { # VERSION LINE WANTED
	up "$1" initiator aes128-sha256-ecp256 aes128gcm16 "$2"
	says_nowhere ours 'flag.* esn'
	state_says ours "$3"
}
case_v2_window_default() { window 2 "" 'replay[-_]window 32[, ]'; }
case_v1_window_wide() {
	window 1 "	replay_window=1024" 'replay_window 1024,'
}
case_v2_window_none() {
	up 2 initiator aes128-sha256-ecp256 aes128gcm16 "	replay_window=0"
	says_nowhere ours 'replay_window [1-9]'
	says_nowhere ours 'replay-window [1-9]'
}

# Several selectors a side -----------------------------------------------------

case_v2_selectors() {
	OURS_NETS="	leftsubnet=10.1.0.0/24,10.3.0.0/24
	rightsubnet=10.2.0.0/24,10.4.0.0/24"
	PEER_NETS="local_ts = 10.2.0.0/24,10.4.0.0/24
        remote_ts = 10.1.0.0/24,10.3.0.0/24"
	two_hosts
	net_inner ours 10.3.0.1/24
	net_inner peer 10.4.0.1/24
	ip -n "$NET_ID-ours" route add 10.4.0.0/24 via $R
	ip -n "$NET_ID-peer" route add 10.3.0.0/24 via $L
	peer_start 2 aes128-sha256-ecp256 aes128gcm16
	ours_start 2 aes128-sha256-ecp256 aes128gcm16
	orthrus ours up net
	net_until 5 both_have 1
	counted selectors_pings
	holds ours 2 12
	orthrus ours down net
	net_until 8 holds ours 0 0
}
selectors_pings() {
	local from to
	for from in 10.1.0.1 10.3.0.1; do
		for to in 10.2.0.1 10.4.0.1; do net_ping ours $from $to; done
	done
}

# Traffic starts a connection --------------------------------------------------

on_demand() { # VERSION
	two_hosts
	peer_start "$1" aes128-sha256-ecp256 aes128gcm16
	ours_start "$1" aes128-sha256-ecp256 aes128gcm16 "	auto=route"
	net_until 8 test "$(policies ours)" -gt 0
	ours_has 0
	net_until 20 net_ping ours 10.1.0.1 10.2.0.1 1
	net_until 5 both_have 1
	pings
	# And again, when it was closed by the peer.
	swan peer --terminate --ike net
	net_until 8 both_have 0
	net_until 20 net_ping ours 10.1.0.1 10.2.0.1 1
	net_until 5 both_have 1
	pings
}
case_v2_on_demand() { on_demand 2; }
case_v1_on_demand() { on_demand 1; }

# What the kernel refuses is explained, and nothing of it remains --------------

refused() { # VERSION ROLE WORDS
	if [ "$2" = initiator ]; then
		! timeout 120 "$ORTHRUS" --control \
		    "$NET_DIR/ours/orthrus.ctl" up net >"$NET_DIR/up" 2>&1
		cat "$NET_DIR/up"
		grep -iE "$3" "$NET_DIR/up"
	else
		! swan peer --initiate --child net --timeout 20
	fi
	grep -iE "$3" "$NET_DIR/ours/orthrus.log"
	net_until 5 ours_has 0
}
case_v2_policy_in_the_way() {
	local way
	two_hosts
	peer_start 2 aes128-sha256-ecp256 aes128gcm16
	ours_start 2 aes128-sha256-ecp256 aes128gcm16
	ip -n "$NET_ID-ours" xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 \
	    dir out priority 77 tmpl proto esp reqid 7 mode transport
	way=$(ip -n "$NET_ID-ours" xfrm policy | grep -A1 10.1.0)
	refused 2 initiator 'not ours'
	refused 2 responder 'not ours'
	net_until 5 holds ours 0 1
	[ "$way" = "$(ip -n "$NET_ID-ours" xfrm policy | grep -A1 10.1.0)" ]
	net_until 15 peer_has 0
	# Once it is out of the way, all is well.
	ip -n "$NET_ID-ours" xfrm policy del src 10.1.0.0/24 dst 10.2.0.0/24 \
	    dir out
	orthrus ours up net
	net_until 5 both_have 1
	pings
}
case_v1_policy_in_the_way() {
	two_hosts
	peer_start 1 aes128-sha256-ecp256 aes128gcm16
	ours_start 1 aes128-sha256-ecp256 aes128gcm16
	ip -n "$NET_ID-ours" xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 \
	    dir in priority 77 tmpl proto esp reqid 7 mode transport
	refused 1 initiator 'not ours'
	refused 1 responder 'not ours'
	net_until 5 holds ours 0 1
	net_until 15 peer_has 0
}

# The whole kernel lacks it then, and so does the peer: we must be asked first.
alone_with_chacha() {
	exec 9>/run/orthrus-chacha
	flock 9
}
case_v2_kernel_lacks() {
	local block=/etc/modprobe.d/orthrus-lacks.conf
	alone_with_chacha
	modprobe -r chacha20poly1305
	echo "install chacha20poly1305 /bin/false" >$block
	two_hosts
	peer_start 2 aes128-sha256-ecp256 chacha20poly1305
	ours_start 2 aes128-sha256-ecp256 chacha20poly1305
	refused 2 responder 'not (have )?the algorithm'
	net_until 5 holds ours 0 0
	net_until 15 peer_has 0
	rm $block
	swan peer --initiate --child net
	net_until 5 both_have 1
	pings
}
eval "$(declare -f case_v2_chacha | sed '1s/case_v2/plain/')"
case_v2_chacha() {
	alone_with_chacha
	rm -f /etc/modprobe.d/orthrus-lacks.conf
	plain_chacha
}

# What dies, and what it leaves ------------------------------------------------

gate_of() {
	sed -n 's/.*gate is process //p' "$NET_DIR/ours/orthrus.log" | tail -1
}
gate_is_new() { [ "$(gate_of)" != "$1" ] && orthrus ours status; }
gate_dies() { # VERSION
	local gate
	up "$1" initiator aes128-sha256-ecp256 aes128gcm16
	ip -n "$NET_ID-ours" xfrm state add src 198.51.100.1 dst 198.51.100.2 \
	    proto esp spi 0x999 reqid 7 mode tunnel \
	    aead 'rfc4106(gcm(aes))' 0x$(printf %040d 7) 128
	gate=$(gate_of)
	kill -9 "$gate"
	net_until 10 gate_is_new "$gate"
	net_until 10 holds ours 1 0
	orthrus ours up net
	net_until 10 both_have 1
	pings
	state_says ours 0x00000999
}
case_v2_gate_dies() { gate_dies 2; }
case_v1_gate_dies() { gate_dies 1; }

# All die at once: the next start clears what was ours, and that alone.
all_die() { # VERSION
	local pid
	up "$1" responder aes128-sha256-ecp256 aes128gcm16
	ip -n "$NET_ID-ours" xfrm state add src 198.51.100.1 dst 198.51.100.2 \
	    proto esp spi 0x999 reqid 7 mode tunnel \
	    aead 'rfc4106(gcm(aes))' 0x$(printf %040d 7) 128
	ip -n "$NET_ID-ours" xfrm policy add src 10.9.0.0/24 dst 10.8.0.0/24 \
	    dir out tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 7 \
	    mode tunnel
	for pid in $(ip netns pids "$NET_ID-ours"); do kill -9 "$pid"; done
	net_until 5 test -z "$(ip netns pids "$NET_ID-ours")"
	holds ours 3 4
	rm -f "$NET_DIR/ours/orthrus.ctl"
	ours_start "$1" aes128-sha256-ecp256 aes128gcm16
	holds ours 1 1
	state_says ours 0x00000999
	orthrus ours up net
	net_until 10 both_have 1
	pings
}
case_v2_all_die() { all_die 2; }
case_v1_all_die() { all_die 1; }

# Orthrus at both ends, choosing its data plane by itself ----------------------

other_start() { # VERSION IKE ESP
	orthrus_start peer "
conn net
	authby=psk
	keyexchange=ikev$1
	left=$R
	right=$L
	leftid=peer.example
	rightid=ours.example
	leftsubnet=10.2.0.0/24
	rightsubnet=10.1.0.0/24
	ike=$2
	esp=$3
	auto=add
" "@ours.example @peer.example : PSK \"$NET_PSK\""
}
other_has() {
	[ "$(orthrus peer list sas --json | grep -c '"state": *"up"')" = "$1" ]
}
both_heads() { # VERSION
	DATA_PLANE=auto
	two_hosts
	other_start "$1" aes128-sha256-x25519 aes128gcm16
	ours_start "$1" aes128-sha256-x25519 aes128gcm16 "	auto=start"
	orthrus ours status | grep -E 'data plane.*xfrm'
	orthrus peer status | grep -E 'data plane.*xfrm'
	net_until 20 ours_has 1
	net_until 5 other_has 1
	pings
	wire_is_clean
	orthrus ours down net
	net_until 8 holds ours 0 0
	net_until 8 holds peer 0 0
	orthrus peer up net
	net_until 5 ours_has 1
	pings
}
case_both_v2() { both_heads 2; }
case_both_v1() { both_heads 1; }

# libreswan --------------------------------------------------------------------

# Its paths are compiled in: an overlay of its /usr in a mount namespace.
lsw_run() { LD_LIBRARY_PATH=$LSW/usr/lib/x86_64-linux-gnu "$@"; }
whack() {
	lsw_run timeout $((20 * NET_SLOW)) "$LSW/usr/libexec/ipsec/whack" \
	    --rundir "$NET_DIR/peer/run" "$@"
}
lsw_loaded() { whack --status | grep -q '"net"'; }
lsw_start() { # VERSION IKE ESP
	local dir=$NET_DIR/peer version=insist
	[ -x "${LSW:-}/usr/libexec/ipsec/pluto" ] || {
		echo "libreswan could not be fetched"
		exit 77
	}
	[ "$1" = 2 ] || version=no
	mkdir -p "$dir/nss" "$dir/run" "$dir/ipsec.d"
	lsw_run "$LSW/usr/bin/certutil" -N -d "sql:$dir/nss" --empty-password
	cat >"$dir/ipsec.conf" <<-X
	config setup
	    logfile=$dir/pluto.log
	    dnssec-enable=no
	    ikev1-policy=accept
	    uniqueids=no

	conn net
	    ikev2=$version
	    authby=secret
	    left=$R
	    leftid=@peer.example
	    leftsubnet=10.2.0.0/24
	    leftupdown=%disabled
	    right=$L
	    rightid=@ours.example
	    rightsubnet=10.1.0.0/24
	    ike=$2
	    esp=$3
	    auto=add
	X
	(umask 077 && echo "@peer.example @ours.example : PSK \"$NET_PSK\"" \
	    >"$dir/secrets")
	net_daemon peer unshare -m sh -c "mount --make-rprivate / &&
	    mount -t overlay o -o lowerdir=$LSW/usr:/usr /usr &&
	    mount -t tmpfs run /run && mkdir -p /run/pluto &&
	    exec /usr/libexec/ipsec/pluto --nofork --config $dir/ipsec.conf \
	    --secretsfile $dir/secrets --nssdir sql:$dir/nss \
	    --ipsecdir $dir/ipsec.d --rundir $dir/run \
	    --logfile $dir/pluto.log --no-dnssec" >"$dir/pluto.out" 2>&1
	net_until 20 lsw_loaded || {
		tail -n 20 "$dir/pluto.out" "$dir/pluto.log" >&2
		return 1
	}
}

libreswan() { # VERSION ROLE
	local before more= esp="aes_gcm128;dh19"
	# IKEv1: it renews nothing when asked, so the renewal is ours; and its
	# group for PFS is always that of phase 1.
	if [ "$1" = 1 ]; then
		esp=aes_gcm128
		more="	lifetime=70s
	margintime=30s
	rekeyfuzz=0%"
	fi
	two_hosts
	lsw_start "$1" aes128-sha2_256-dh19 "$esp"
	ours_start "$1" aes128-sha256-ecp256 aes128gcm16-ecp256 "$more"
	if [ "$2" = initiator ]; then
		orthrus ours up net
	else
		whack --name net --initiate
	fi
	net_until 8 ours_has 1
	pings
	before=$(ours_spis)
	wire_is_clean
	if [ "$1" = 2 ]; then
		# It renews the child, then the IKE SA.
		whack --name net --rekey-ipsec
		net_until 10 spis_differ "$before"
		net_until 10 ours_has 1
		pings
		whack --name net --rekey-ike
		sleep 2
	else
		net_until 60 spis_differ "$before"
	fi
	net_until 10 ours_has 1
	pings
	if [ "$2" = initiator ]; then
		orthrus ours down net
	else
		whack --name net --terminate
	fi
	net_until 10 holds ours 0 0
	net_until 10 no_states peer
	# And once more, the other way round.
	if [ "$2" = initiator ]; then
		whack --name net --initiate
	else
		orthrus ours up net
	fi
	net_until 8 ours_has 1
	pings
}
case_libreswan_v2_initiator() { libreswan 2 initiator; }
case_libreswan_v2_responder() { libreswan 2 responder; }
case_libreswan_v1_initiator() { libreswan 1 initiator; }
case_libreswan_v1_responder() { libreswan 1 responder; }
