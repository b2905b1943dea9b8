# lib.sh: hosts in network namespaces, with Orthrus or a real peer on them.
# Sourced by bash. BUILD is the build folder; DATA_PLANE is Orthrus's, and
# SWAN_KERNEL strongSwan's plugins for the same; NET_SLOW=N makes every wait N
# times as long.
#
# net_host NAME, net_link A ADDR/BITS B ADDR/BITS, net_inner HOST ADDR/BITS
# orthrus_start HOST CONF SECRETS [options]; orthrus HOST words...
# strongswan_start HOST CONF; swan HOST words...
# net_ping HOST FROM TO; net_clean

: "${BUILD:?folder of the build}"
ORTHRUSD=${ORTHRUSD:-$BUILD/orthrusd}
ORTHRUS=${ORTHRUS:-$BUILD/orthrus}
NET_ID=${NET_ID:-o$$}
NET_DIR=${NET_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/orthrus-net.XXXXXX")}
NET_PSK="interop-psk-0123456789-abcdefgh"
DATA_PLANE=${DATA_PLANE:-auto}
NET_SLOW=${NET_SLOW:-1}
NET_HOSTS=
NET_PIDS=

ns() { ip netns exec "$NET_ID-$1" "${@:2}"; }

net_host() {
	local n i
	for n in "$@"; do
		ip netns add "$NET_ID-$n" || return 1
		NET_HOSTS="$NET_HOSTS $n"
		mkdir -p "$NET_DIR/$n"
		ip -n "$NET_ID-$n" link set lo up
		for i in all default; do
			ns "$n" sh -c "echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter
			    echo 1 >/proc/sys/net/ipv4/ip_forward"
		done
	done
}

# net_link A ADDR/BITS B ADDR/BITS [DEVICE-AT-A DEVICE-AT-B]
net_link() {
	local a=${5:-$1-$3} b=${6:-$3-$1}
	ip link add "$a" netns "$NET_ID-$1" type veth peer name "$b" \
	    netns "$NET_ID-$3" || return 1
	net_addr "$1" "$2" "$a" && net_addr "$3" "$4" "$b"
	ip -n "$NET_ID-$1" link set "$a" up
	ip -n "$NET_ID-$3" link set "$b" up
}

net_addr() {
	case $2 in
	*:*) ip -n "$NET_ID-$1" -6 addr add "$2" dev "$3" nodad ;;
	*) ip -n "$NET_ID-$1" addr add "$2" dev "$3" ;;
	esac
}

# An address behind the host, on its loopback.
net_inner() { net_addr "$1" "$2" lo; }

# A ping from an inner address; the other's must answer.
net_ping() { ns "$1" ping -q -c "${4:-3}" -i 0.2 -W $((2 * NET_SLOW)) -I "$2" "$3" >/dev/null; }

# Starts a daemon in the background; NET_PIDS for the end.
net_daemon() {
	local host=$1
	shift
	ip netns exec "$NET_ID-$host" "$@" &
	NET_PIDS="$NET_PIDS $!"
	eval "PID_${host//-/_}=$!"
}

net_until() { # SECONDS COMMAND...
	local deadline=$((SECONDS + $1 * NET_SLOW))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.1
	done
}

net_clean() {
	local p n
	for p in $NET_PIDS; do kill "$p" 2>/dev/null; done
	for p in $NET_PIDS; do
		for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 \
		    21 22 23 24 25 26 27 28 29 30; do
			kill -0 "$p" 2>/dev/null || break
			sleep 0.1
		done
		kill -9 "$p" 2>/dev/null
	done
	wait 2>/dev/null
	for n in $NET_HOSTS; do ip netns del "$NET_ID-$n" 2>/dev/null; done
	NET_HOSTS= NET_PIDS=
	[ -n "${NET_KEEP:-}" ] || rm -rf "$NET_DIR"
}

# Orthrus --------------------------------------------------------------------

orthrus() { "$ORTHRUS" --control "$NET_DIR/$1/orthrus.ctl" "${@:2}"; }

orthrus_start() { # HOST CONF-TEXT SECRETS-TEXT [options]
	local host=$1 dir=$NET_DIR/$1
	printf '%s\n' "$2" >"$dir/ipsec.conf"
	(umask 077 && printf '%s\n' "$3" >"$dir/ipsec.secrets")
	shift 3
	net_daemon "$host" "$ORTHRUSD" -f -c "$dir/ipsec.conf" \
	    -s "$dir/ipsec.secrets" --control "$dir/orthrus.ctl" \
	    --data-plane "$DATA_PLANE" --log debug "$@" \
	    >"$dir/orthrus.log" 2>&1
	net_until 10 orthrus "$host" status || {
		echo "orthrusd on $host does not answer:" >&2
		tail -n 20 "$dir/orthrus.log" >&2
		return 1
	}
}

# strongSwan -----------------------------------------------------------------

SWAN_KERNEL=${SWAN_KERNEL:-kernel-libipsec kernel-netlink}
# Debian 13 has one of them at a time; both read the section charon.
CHARON=/usr/lib/ipsec/charon
[ -x "$CHARON" ] || CHARON=/usr/sbin/charon-systemd
SWAN_MORE=${SWAN_MORE:-}

swan() {
	local dir=$NET_DIR/$1 verb=$2
	shift 2
	STRONGSWAN_CONF=$dir/strongswan.conf timeout \
	    $((${SWAN_TIMEOUT:-30} * NET_SLOW)) \
	    swanctl "$verb" --uri "unix://$dir/charon.vici" "$@"
}

strongswan_start() { # HOST SWANCTL-CONF-TEXT
	local host=$1 dir=$NET_DIR/$1
	printf '%s\n' "$2" >"$dir/swanctl.conf"
	cat >"$dir/strongswan.conf" <<-X
	charon {
	  load = aes des sha2 sha1 hmac kdf random nonce gcm chapoly gmp curve25519 openssl x509 pubkey pem $SWAN_KERNEL socket-default vici
	  retransmit_timeout = 1
	  retransmit_tries = 4
	  $SWAN_MORE
	  plugins { vici { socket = unix://$dir/charon.vici } }
	  filelog { log { path = $dir/charon.log
	    flush_line = yes
	    default = 1
	    ike = 2
	    knl = 2
	    cfg = 2 } }
	}
	swanctl { load = random }
	X
	# charon insists on its own pid file: a /run for each.
	net_daemon "$host" unshare -m sh -c "mount --make-rprivate / &&
	    mount -t tmpfs run /run &&
	    STRONGSWAN_CONF=$dir/strongswan.conf exec $CHARON" \
	    >"$dir/charon.out" 2>&1
	net_until 15 test -S "$dir/charon.vici" || {
		echo "charon on $host does not start" >&2
		return 1
	}
	swan "$host" --load-all --noprompt --file "$dir/swanctl.conf" \
	    >"$dir/load.out" 2>&1 || {
		cat "$dir/load.out" >&2
		return 1
	}
}
