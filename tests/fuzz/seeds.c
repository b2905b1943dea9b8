/*
 * seeds: what the fuzz targets begin with, one folder a target, taken from
 * exchanges of both versions between whole gateways.
 *
 *	seeds FOLDER
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/vaultmsg.h"
#include "conf/load.h"
#include "tests/fuzz/fuzz.h"
#include "tests/play/play.h"

#define MESSAGES 64
#define OCTETS   4096

struct message {
	size_t len;
	uint8_t octets[OCTETS];
};

struct recorder {
	struct gateway *peer;
	size_t count, chain_count;
	struct message sent[MESSAGES], chain[MESSAGES];
	uint8_t act[MESSAGES]; /* what the peer was doing */
	uint8_t doing;
};

static const char *folder;

static void
put(const char *target, const char *name, unsigned number, struct view octets)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, target);
	HOLDS(mkdir(path, 0777) == 0 || errno == EEXIST);
	snprintf(
	    path, sizeof(path), "%s/%s/%s-%u", folder, target, name, number);
	file = fopen(path, "wb");
	HOLDS(file != NULL);
	HOLDS(fwrite(octets.at, 1, octets.len, file) == octets.len);
	HOLDS(fclose(file) == 0);
}

/* Exchanges ---------------------------------------------------------------- */

static bool
tap(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct recorder *recorder = arg;
	struct message *message;

	(void)play;
	if (from != recorder->peer || recorder->count == MESSAGES ||
	    packet->octets.len > OCTETS)
		return true;
	message = &recorder->sent[recorder->count++];
	message->len = packet->octets.len;
	memcpy(message->octets, octets, message->len);
	return true;
}

static void
learn(struct env *env, uint8_t *first, struct buf *chain)
{
	struct recorder *recorder = env->impair_arg;
	struct message *message;

	if (recorder->chain_count == MESSAGES || chain->len + 1 > OCTETS)
		return;
	recorder->act[recorder->chain_count] = recorder->doing;
	message = &recorder->chain[recorder->chain_count++];
	message->octets[0] = *first;
	memcpy(message->octets + 1, chain->at, chain->len);
	message->len = chain->len + 1;
}

static void
record(struct recorder *recorder, unsigned version, bool peer_begins)
{
	struct play *play = play_new(1);
	struct gateway *gate;
	struct ike_sa *sa;

	memset(recorder, 0, sizeof(*recorder));
	play_pair(play, &gate, &recorder->peer,
	    version == 1 ? KEYEX_IKEV1 : KEYEX_IKEV2);
	play->tap = tap;
	play->tap_arg = recorder;
	recorder->peer->env.impair = learn;
	recorder->peer->env.impair_arg = recorder;
	recorder->doing = 4;
	gateway_up(peer_begins ? recorder->peer : gate, "net", 0);
	play_run(play, 1000);
	for (recorder->doing = 0; recorder->doing < 6; recorder->doing++) {
		struct gateway *gw = peer_begins ? recorder->peer : gate;
		struct child_sa *child = gateway_child(gw);

		sa = gateway_ike(gw);
		if (sa == NULL)
			break;
		if (recorder->doing == 0)
			sa->engine->probe(sa);
		else if (recorder->doing == 1 && child != NULL)
			sa->engine->child_rekey(child);
		else if (recorder->doing == 2)
			sa->engine->rekey(sa);
		else if (recorder->doing == 3 && child != NULL)
			sa->engine->child_close(child);
		else if (recorder->doing == 4)
			gateway_up(gw, "net", 0);
		else
			sa->engine->close(sa);
		play_run(play, 15000);
	}
	play->tap = NULL;
	play_free(play);
}

static void
step(struct buf *script, enum fuzz_step what, const uint8_t *octets, size_t len)
{
	buf_u8(script, (uint8_t)what);
	buf_u16(script, (uint16_t)len);
	buf_put(script, octets, len);
}

static void
engine_seeds(unsigned version, bool peer_begins)
{
	struct recorder *recorder = calloc(1, sizeof(*recorder));
	const char *target = version == 1 ? "fuzz_v1" : "fuzz_v2";
	uint8_t octets[OCTETS + 64];
	struct wire_header header = { .spi_i = 1, .spi_r = 2 };
	struct buf buf;
	unsigned i, stage;

	HOLDS(recorder != NULL);
	record(recorder, version, peer_begins);
	HOLDS(recorder->count > 0 && recorder->chain_count > 0);
	for (i = 0; i < recorder->count; i++) {
		struct message *message = &recorder->sent[i];

		for (stage = 0; stage < FUZZ_STAGES; stage++) {
			buf_init(&buf, octets, sizeof(octets));
			buf_u8(&buf, (uint8_t)stage);
			step(&buf,
			    stage == FUZZ_STRANGER ? FUZZ_DATAGRAM : FUZZ_NAMED,
			    message->octets, message->len);
			put(target, peer_begins ? "sent" : "answer",
			    i * FUZZ_STAGES + stage, buf_done(&buf));
		}
		buf_init(&buf, octets, sizeof(octets));
		buf_u8(&buf, version == 1 ? 0 : 1);
		buf_put(&buf, message->octets, message->len);
		put("fuzz_wire", version == 1 ? "v1" : "v2",
		    i + (peer_begins ? 0 : MESSAGES), buf_done(&buf));
	}
	for (i = 0; i < recorder->chain_count; i++) {
		struct message *chain = &recorder->chain[i];

		buf_init(&buf, octets, sizeof(octets));
		buf_u8(&buf, peer_begins ? FUZZ_ESTABLISHED : FUZZ_ANSWERED);
		step(&buf, FUZZ_SEALED, chain->octets, chain->len);
		step(&buf, FUZZ_ACT, &recorder->act[i], 1);
		put(target, peer_begins ? "chain" : "reply", i, buf_done(&buf));

		buf_init(&buf, octets, sizeof(octets));
		buf_u8(&buf, version == 1 ? 2 : 1);
		header.next = chain->octets[0];
		header.major = (uint8_t)version;
		header.length = (uint32_t)(WIRE_HEADER + chain->len - 1);
		wire_header_write(&buf, &header);
		buf_put(&buf, chain->octets + 1, chain->len - 1);
		put("fuzz_wire", version == 1 ? "chain1" : "chain2",
		    i + (peer_begins ? 0 : MESSAGES), buf_done(&buf));
	}
	free(recorder);
}

/* Files -------------------------------------------------------------------- */

static const char *const confs[] = {
	"config setup\n\tuniqueids=yes\n\nconn %default\n\tkeyexchange=ike\n"
	"\tauthby=psk\n\nconn "
	"office\n\tleft=192.0.2.1\n\tleftid=@gate.example\n"
	"\tleftsubnet=10.0.0.0/16,10.1.0.0/16\n\tright=203.0.113.9\n"
	"\trightid=mac@example.org\n\trightsubnet=10.2.0.0/16[tcp/80]\n"
	"\tike=aes256-sha256-modp2048,aes128-sha256-curve25519!\n"
	"\tesp=aes128gcm16-ecp256!\n\tikelifetime=8h\n\tlifetime=1h\n"
	"\tmargintime=9m\n\trekeyfuzz=100%\n\tauto=start\n",
	"include /etc/more.conf\nconn b\n\talso=a\n\tright=%any\n\tauto=add\n"
	"\tdpdaction=restart\n\tdpddelay=30s\n\ttype=transport\n",
	"conn c\n\tleft=%defaultroute\n\tright=vpn.example.org\n"
	"\tright = \"vpn.example.org, 2001:db8::/32\" # comment\n"
	"\tforceencaps=yes\n\tfragmentation=force\n\tkeyingtries=%forever\n"
	"\treplay_window=64\n\trekey=no\n\tleftauth=psk\n",
};
static const char *const secrets[] = {
	"@gate.example 203.0.113.9 : PSK \"correct horse battery staple\"\n",
	": PSK 0x0123456789abcdef\n%any mac@example.org : PSK 0sYWJjZA==\n",
	"include /etc/more.secrets\n: PSK word\n",
	"192.0.2.1 %any6 : PSK 'one two'\n# c\n@#ab @@u@x\n\t: PSK 0tText\n",
	": RSA key.pem\nuser : EAP \"secret\"\n",
};

static void
file_seeds(void)
{
	static const char more[] = "\0conn a\n\tauthby=psk\n";
	uint8_t octets[2048];
	struct buf buf;
	unsigned i;

	for (i = 0; i < sizeof(confs) / sizeof(confs[0]); i++) {
		buf_init(&buf, octets, sizeof(octets));
		buf_view(&buf, view_text(confs[i]));
		if (i == 1)
			buf_put(&buf, more, sizeof(more) - 1);
		put("fuzz_conf", "conf", i, buf_done(&buf));
	}
	for (i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
		put("fuzz_secrets", "secrets", i, view_text(secrets[i]));
}

/* Messages between processes ------------------------------------------------ */

static struct buf *
message(struct buf *buf, uint8_t *octets, size_t size, uint8_t which)
{
	buf_init(buf, octets, size);
	buf_u8(buf, which);
	return buf;
}

static void
kernel_seeds(uint8_t *octets, size_t size)
{
	struct play *play = play_new(1);
	struct kmsg_answer answer = { .op = KMSG_SPI, .spi = 0x1234 };
	struct kmsg_event event = { .kind = KEVENT_MAPPING, .spi = 0x1234 };
	struct gateway *left, *right;
	struct buf buf;
	size_t i;

	play_pair(play, &left, &right, KEYEX_IKEV2);
	gateway_up(left, "net", 0);
	play_run(play, 1000);
	for (i = 0; i < left->kernel.sa_count; i++) {
		struct kmsg kmsg = { .op = KMSG_SA_ADD,
			.sequence = 7,
			.sa = left->kernel.sa[i].sa };

		kmsg_put(message(&buf, octets, size, 0), &kmsg);
		put("fuzz_ipc", "sa", (unsigned)i, buf_done(&buf));
		event.remote = kmsg.sa.src;
	}
	for (i = 0; i < left->kernel.policy_count; i++) {
		struct kmsg kmsg = { .op = KMSG_POLICY_ADD,
			.sequence = 7,
			.policy = left->kernel.policy[i] };

		kmsg_put(message(&buf, octets, size, 0), &kmsg);
		put("fuzz_ipc", "policy", (unsigned)i, buf_done(&buf));
	}
	kmsg_answer_put(message(&buf, octets, size, 1), &answer);
	put("fuzz_ipc", "answer", 0, buf_done(&buf));
	kmsg_event_put(message(&buf, octets, size, 2), &event);
	put("fuzz_ipc", "event", 0, buf_done(&buf));
	play_free(play);
}

static void
ipc_seeds(void)
{
	static uint8_t octets[1 << 16];
	static const uint8_t frame[] = { 7, 1, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0,
		0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 0, 0, 2, 0, 0, 0, 9,
		0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0 };
	struct ident *local, *remote;
	const char *problem;
	struct bundle bundle;
	struct vault_psk_auth auth = { .prf = alg_get(ALG_PRF_SHA256) };
	struct vault_skeyid skeyid = { .prf = alg_get(ALG_PRF_SHA256) };
	struct vault_permits permits = { .local = NULL };
	struct buf buf;
	uint8_t *packed;
	size_t len;

	kernel_seeds(octets, sizeof(octets));
	HOLDS(ident_parse(&local, "gate.example", &problem) == OK);
	HOLDS(ident_parse(&remote, "mac@example.org", &problem) == OK);
	auth.local = skeyid.local = permits.local = local;
	auth.remote = skeyid.remote = permits.remote = remote;
	vaultmsg_put_psk_auth(message(&buf, octets, sizeof(octets), 3), &auth);
	put("fuzz_ipc", "auth", 0, buf_done(&buf));
	vaultmsg_put_skeyid(message(&buf, octets, sizeof(octets), 4), &skeyid);
	put("fuzz_ipc", "skeyid", 0, buf_done(&buf));
	vaultmsg_put_permits(
	    message(&buf, octets, sizeof(octets), 5), &permits);
	put("fuzz_ipc", "permits", 0, buf_done(&buf));
	ident_unref(local);
	ident_unref(remote);
	bundle_init(&bundle, NULL, NULL);
	HOLDS(bundle_add(&bundle, "/etc/*.conf", "/etc/a.conf",
	          view_text("conn a\n")) == OK);
	HOLDS(bundle_add_problem(&bundle, "/etc/b", "/etc/b", "no") == OK);
	HOLDS(bundle_pack(&bundle, &packed, &len) == OK);
	buf_put(message(&buf, octets, sizeof(octets), 6), packed, len);
	put("fuzz_ipc", "bundle", 0, buf_done(&buf));
	free(packed);
	bundle_fini(&bundle);
	put("fuzz_ipc", "frames", 0, view_of(frame, sizeof(frame)));
}

static void
inner_seeds(void)
{
	static const uint8_t v4[] = { 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0,
		0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 0, 8, 0, 0 };
	static const uint8_t v6[] = { 0, 0x60, 0, 0, 0, 0, 16, 0, 64, 0x20, 1,
		0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 1, 0xd,
		0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 17, 0, 1, 4, 0, 0, 0,
		0, 0, 7, 0, 7, 0, 8, 0, 0 };
	uint8_t octets[64];

	put("fuzz_inner", "v4", 0, view_of(v4, sizeof(v4)));
	put("fuzz_inner", "v6", 0, view_of(v6, sizeof(v6)));
	memcpy(octets + 1, v4, sizeof(v4));
	octets[0] = 3;
	put("fuzz_inner", "esp", 0, view_of(octets, sizeof(v4) + 1));
	octets[1] = 1;
	put("fuzz_inner", "esp", 1, view_of(octets, sizeof(v4) + 1));
	octets[0] = 1;
	put("fuzz_inner", "esp", 2, view_of(octets, sizeof(v4) + 1));
}

/* What octet 0 of fuzz_plane's input says. */
enum { FROM_DEVICE = 0, SEALED = 2, FROM_WIRE = 3, TUNNEL = 4 };

/* A TCP packet of the system's that is to be cut, two fragments, and the same
 * from the peer. */
static void
plane_seeds(void)
{
	/* virtio: checksum wanted, TCP over IPv4 or IPv6, cut to 300 octets */
	static const uint8_t tcp4[] = { FROM_DEVICE, 1, 1, 52, 0, 0x2c, 1, 20,
		0, 16, 0, 0x45, 0, 3, 0xe8, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 1,
		0, 1, 10, 2, 0, 1, 0, 7, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0x50,
		0x18 };
	static const uint8_t tcp6[] = { FROM_DEVICE, 1, 4, 60, 0, 0x2c, 1, 40,
		0, 16, 0, 0x60, 0, 0, 0, 3, 0xc0, 6, 64, 0xfd, 1, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 1, 0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 1, 0, 7, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10 };
	static const uint8_t hosts[] = { FROM_DEVICE, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0x45, 0, 0, 44, 0, 7, 0x20, 0, 64, 17, 0, 0, 127, 0, 0, 1,
		127, 0, 0, 1, 0, 7, 0, 7, 0, 40, 0, 0 };
	static const uint8_t udp[] = { SEALED, 17, 0, 7, 0, 7, 0, 24, 1, 1 };
	static const uint8_t wire[] = { FROM_WIRE, 0, 0, 16, 0, 0, 0, 0, 1 };
	uint8_t octets[1100];
	size_t len = 2 + 1000;

	memset(octets, 0, sizeof(octets));
	memcpy(octets, tcp4, sizeof(tcp4));
	put("fuzz_plane", "tcp", 4, view_of(octets, 11 + 1000));
	octets[2] = 0; /* not to be cut: too big for the path or not */
	put("fuzz_plane", "tcp", 5, view_of(octets, 11 + 1000));
	memset(octets, 0, sizeof(octets));
	octets[0] = SEALED | TUNNEL;
	octets[1] = 4;
	memcpy(octets + 2, tcp4 + 11, sizeof(tcp4) - 11);
	put("fuzz_plane", "sealed", 4, view_of(octets, len));
	memset(octets, 0, sizeof(octets));
	memcpy(octets, tcp6, sizeof(tcp6));
	put("fuzz_plane", "tcp", 6, view_of(octets, 11 + 1000));
	memset(octets, 0, sizeof(octets));
	octets[0] = SEALED | TUNNEL;
	octets[1] = 41;
	memcpy(octets + 2, tcp6 + 11, sizeof(tcp6) - 11);
	put("fuzz_plane", "sealed", 6, view_of(octets, len));
	memset(octets, 0, sizeof(octets));
	memcpy(octets, hosts, sizeof(hosts));
	put("fuzz_plane", "piece", 0, view_of(octets, 11 + 44));
	octets[17] = 0;
	octets[18] = 3;
	put("fuzz_plane", "piece", 1, view_of(octets, 11 + 44));
	memset(octets, 0, sizeof(octets));
	memcpy(octets, udp, sizeof(udp));
	put("fuzz_plane", "udp", 0, view_of(octets, 2 + 24));
	memset(octets, 0, sizeof(octets));
	memcpy(octets, wire, sizeof(wire));
	put("fuzz_plane", "wire", 0, view_of(octets, 60));
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seeds FOLDER\n");
		return 2;
	}
	folder = argv[1];
	HOLDS(mkdir(folder, 0777) == 0 || errno == EEXIST);
	for (unsigned version = 1; version <= 2; version++) {
		engine_seeds(version, true);
		engine_seeds(version, false);
	}
	file_seeds();
	ipc_seeds();
	inner_seeds();
	plane_seeds();
	return 0;
}
