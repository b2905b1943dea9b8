#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/vaultmsg.h"
#include "conf/load.h"
#include "conf/secrets.h"
#include "daemon/vault_link.h"
#include "daemon/vault_local.h"
#include "daemon/vaultd.h"

/* The vault's asking sides: over a real process that the test forks, and in
 * the same process. */
struct scene {
	struct env env; /* first: callbacks know it only */
	struct loop *loop;
	struct log log;
	pid_t pid;
	struct vault_link *link;
	char dir[64], path[96];

	unsigned loads, broken, ends, lost;
	uint64_t load_serial;
	struct vaultd_loaded loaded;
	enum err lost_err;

	unsigned auths, nonces, skeyids, permits;
	enum err err, skeyid_err;
	struct ticket ticket;
	struct vault_psk_auth_answer auth;
	struct vault_nonce_answer nonce;
	struct vault_skeyid_answer skeyid;
	struct ident *gw, *alpha;
};

static void
quiet(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

/* Runs the loop until *count reaches wanted, for two seconds at most. */
static void
await(struct scene *s, const unsigned *count, unsigned wanted)
{
	struct timer timer;
	unsigned i;

	timer_init(&timer, stop, s->loop);
	for (i = 0; i < 2000 && *count < wanted; i++) {
		timer_set(loop_timers(s->loop), &timer, 1);
		loop_run(s->loop);
	}
	assert_int_equal(*count, wanted);
}

static void
on_loaded(void *arg, uint64_t serial, const struct vaultd_loaded *loaded)
{
	struct scene *s = arg;

	s->loads++;
	s->load_serial = serial;
	s->loaded = *loaded;
}

static void
on_closed(void *arg, enum err err, const char *why)
{
	struct scene *s = arg;

	(void)err;
	(void)why;
	s->ends++;
}

static void
on_broken(void *arg)
{
	struct scene *s = arg;

	s->broken++;
}

static void
on_lost(struct env *env, enum err err, const char *why)
{
	struct scene *s = (struct scene *)env;

	assert_non_null(why);
	s->lost++;
	s->lost_err = err;
}

static void
auth_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_psk_auth_answer *answer)
{
	struct scene *s = (struct scene *)env;

	s->auths++;
	s->err = err;
	s->ticket = ticket;
	s->auth = *answer;
}

static void
nonce_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_nonce_answer *answer)
{
	struct scene *s = (struct scene *)env;

	s->nonces++;
	s->err = err;
	s->ticket = ticket;
	s->nonce = *answer;
}

static void
skeyid_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_skeyid_answer *answer)
{
	struct scene *s = (struct scene *)env;

	s->skeyids++;
	s->err = s->skeyid_err = err;
	s->ticket = ticket;
	s->skeyid = *answer;
}

static void
permits_done(struct env *env, struct ticket ticket, enum err err)
{
	struct scene *s = (struct scene *)env;

	s->permits++;
	s->err = err;
	s->ticket = ticket;
}

/* Files and processes ------------------------------------------------------ */

static void
write_file(const struct scene *s, const char *name, const char *text)
{
	char path[160];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* The vault in a process of its own, and its link. */
static void
start_vault(struct scene *s)
{
	const struct vault_link_events events = { on_loaded, on_broken,
		on_closed, s };
	int pair[2];

	assert_int_equal(ipc_pair(pair), OK);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0) {
		struct log log = { LOG_LEVEL_ERROR, quiet, NULL };

		close(pair[0]);
		_exit(vaultd_run(&log, pair[1]));
	}
	close(pair[1]);
	s->link = vault_link_new(s->loop, pair[0], s->path, &events);
	assert_non_null(s->link);
}

static void
kill_vault(struct scene *s)
{
	int status;

	kill(s->pid, SIGKILL);
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	vault_link_free(s->link);
	s->link = NULL;
}

/* The gate's end of a new link to the vault. */
static int
join(struct scene *s)
{
	int pair[2];

	assert_int_equal(ipc_pair(pair), OK);
	assert_int_equal(vault_link_gate(s->link, pair[1]), OK);
	close(pair[1]);
	return pair[0];
}

static void
scene_init(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	s->loop = loop_new();
	assert_non_null(s->loop);
	s->log.write = quiet;
	s->env.timers = loop_timers(s->loop);
	s->env.log = &s->log;
	s->env.random = env_random_openssl;
	snprintf(s->dir, sizeof(s->dir), "/tmp/t_vault.XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/ipsec.secrets", s->dir);
	s->gw = ident_new(ID_FQDN, view_text("gw"));
	s->alpha = ident_new(ID_FQDN, view_text("alpha"));
	write_file(s, "ipsec.secrets", "@gw @alpha : PSK \"alpha secret\"\n");
}

static void
scene_fini(struct scene *s)
{
	static const char *const name[] = { "ipsec.secrets", "a.inc", "b.inc",
		"c.inc" };
	char path[160];
	size_t i;

	vault_free(s->env.vault);
	if (s->link) {
		int status;

		vault_link_free(s->link); /* and the vault ends by itself */
		assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
		assert_int_equal(status, 0);
	}
	for (i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", s->dir, name[i]);
		unlink(path);
	}
	rmdir(s->dir);
	ident_unref(s->gw);
	ident_unref(s->alpha);
	loop_free(s->loop);
}

static void
scene_remote(struct scene *s)
{
	scene_init(s);
	start_vault(s);
	assert_int_equal(vault_link_load(s->link, 1), OK);
	await(s, &s->loads, 1);
	assert_int_equal(s->loaded.err, OK);
	s->env.vault = vault_remote_new(&s->env, s->loop, join(s), on_lost);
	assert_non_null(s->env.vault);
}

static void
scene_local(struct scene *s)
{
	struct keyring *keyring;
	struct diags diags = { 0 };
	struct bundle bundle;

	scene_init(s);
	keyring = keyring_new(env_random_openssl, NULL);
	assert_non_null(keyring);
	bundle_init(&bundle, bundle_read_files, NULL);
	keyring_use(keyring, secrets_load(&bundle, s->path, 1, &diags));
	bundle_fini(&bundle);
	diags_fini(&diags);
	s->env.vault = vault_local_new(&s->env, keyring);
	assert_non_null(s->env.vault);
	assert_ptr_equal(vault_local_keyring(s->env.vault), keyring);
}

/* Both kinds give the same answers ----------------------------------------- */

static struct vault_psk_auth
auth_ask(struct scene *s, uint8_t octets[100])
{
	struct vault_psk_auth ask = { 0 };

	memset(octets, 0x11, 100);
	octets[17] = 0x20;
	octets[18] = 34;
	memset(octets + 20, 0, 8);
	octets[27] = 28;
	ask.prf = alg_get(ALG_PRF_SHA256);
	ask.local = s->gw;
	ask.remote = s->alpha;
	ask.octets = view_of(octets, 100);
	return ask;
}

static void
expect_auth(struct scene *s, const uint8_t octets[100])
{
	struct view part = view_text("Key Pad for IKEv2");
	uint8_t key[PRF_MAX], mac[PRF_MAX];
	const struct alg *alg = alg_get(ALG_PRF_SHA256);

	assert_int_equal(
	    prf(alg, view_text("alpha secret"), &part, 1, key), OK);
	part = view_of(octets, 100);
	assert_int_equal(prf(alg, view_of(key, 32), &part, 1, mac), OK);
	assert_int_equal(s->err, OK);
	assert_memory_equal(s->auth.mac, mac, 32);
}

static void
whole_handshakes(struct scene *s)
{
	struct vault *vault = s->env.vault;
	struct ticket ticket = { 3, 4, 5 };
	struct vault_skeyid skeyid = { 0 };
	struct vault_permits permits = { 0 };
	struct vault_psk_auth auth;
	uint8_t octets[100], own[VAULT_NONCE], peer[20], wanted[PRF_MAX];
	struct view part[2];

	auth = auth_ask(s, octets);
	assert_int_equal(vault_psk_auth(vault, &auth, ticket, auth_done), OK);
	assert_int_equal(s->auths, 0); /* never from inside */
	await(s, &s->auths, 1);
	expect_auth(s, octets);
	assert_int_equal(s->ticket.child, 5);
	auth.remote = s->gw;
	assert_int_equal(vault_psk_auth(vault, &auth, ticket, auth_done), OK);
	await(s, &s->auths, 2);
	assert_int_equal(s->err, ERR_NO_SECRET);
	auth = auth_ask(s, octets);
	octets[17] = 0x10;
	assert_int_equal(vault_psk_auth(vault, &auth, ticket, auth_done), OK);
	await(s, &s->auths, 3);
	assert_int_equal(s->err, ERR_REFUSED);

	assert_int_equal(vault_nonce(vault, ticket, nonce_done), OK);
	assert_int_equal(s->nonces, 0);
	await(s, &s->nonces, 1);
	assert_int_equal(s->err, OK);
	memcpy(own, s->nonce.nonce, sizeof(own));
	memset(peer, 7, sizeof(peer));
	skeyid.prf = alg_get(ALG_PRF_SHA1);
	skeyid.nonce = s->nonce.handle;
	skeyid.peer_nonce = view_of(peer, sizeof(peer));
	skeyid.local = s->gw;
	assert_int_equal(vault_skeyid(vault, &skeyid, ticket, skeyid_done), OK);
	assert_int_equal(s->skeyids, 0);
	await(s, &s->skeyids, 1);
	assert_int_equal(s->err, OK);
	assert_int_equal(s->skeyid.count, 1);
	part[0] = view_of(peer, sizeof(peer));
	part[1] = view_of(own, sizeof(own));
	assert_int_equal(
	    prf(skeyid.prf, view_text("alpha secret"), part, 2, wanted), OK);
	assert_memory_equal(s->skeyid.item[0].skeyid, wanted, 20);
	assert_int_equal(vault_skeyid(vault, &skeyid, ticket, skeyid_done), OK);
	await(s, &s->skeyids, 2);
	assert_int_equal(s->err, ERR_NOT_FOUND);

	permits.secret = s->skeyid.item[0].secret;
	assert_int_equal(permits.secret, 0); /* of the failure */
	assert_int_equal(vault_nonce(vault, ticket, nonce_done), OK);
	await(s, &s->nonces, 2);
	skeyid.nonce = s->nonce.handle;
	assert_int_equal(vault_skeyid(vault, &skeyid, ticket, skeyid_done), OK);
	await(s, &s->skeyids, 3);
	permits.secret = s->skeyid.item[0].secret;
	permits.local = s->gw;
	permits.remote = s->alpha;
	assert_int_equal(
	    vault_permits(vault, &permits, ticket, permits_done), OK);
	assert_int_equal(s->permits, 0);
	await(s, &s->permits, 1);
	assert_int_equal(s->err, OK);
	permits.remote = s->gw;
	permits.local = s->gw;
	assert_int_equal(
	    vault_permits(vault, &permits, ticket, permits_done), OK);
	await(s, &s->permits, 2);
	assert_int_equal(s->err, ERR_REFUSED);

	assert_int_equal(vault_nonce(vault, ticket, nonce_done), OK);
	await(s, &s->nonces, 3);
	vault_nonce_drop(vault, s->nonce.handle);
	skeyid.nonce = s->nonce.handle;
	assert_int_equal(vault_skeyid(vault, &skeyid, ticket, skeyid_done), OK);
	await(s, &s->skeyids, 4);
	assert_int_equal(s->err, ERR_NOT_FOUND);
}

static void
bounds(struct scene *s)
{
	struct vault *vault = s->env.vault;
	struct ticket ticket = { 1, 2, 3 };
	uint8_t *large = calloc(1, VAULT_OCTETS + 1), octets[100];
	struct vault_psk_auth auth = auth_ask(s, octets);
	struct vault_skeyid skeyid = { 0 };
	unsigned i;
	enum err err = OK;

	memcpy(large, octets, 100);
	auth.octets = view_of(large, VAULT_OCTETS + 1);
	assert_int_equal(
	    vault_psk_auth(vault, &auth, ticket, auth_done), ERR_LONG);
	auth.octets = view_of(large, VAULT_OCTETS);
	assert_int_equal(vault_psk_auth(vault, &auth, ticket, auth_done), OK);
	await(s, &s->auths, 1);
	assert_int_equal(s->err, OK);
	skeyid.prf = alg_get(ALG_PRF_SHA1);
	skeyid.peer_nonce = view_of(octets, 7);
	assert_int_equal(
	    vault_skeyid(vault, &skeyid, ticket, skeyid_done), ERR_LONG);
	skeyid.peer_nonce = view_of(large, 257);
	assert_int_equal(
	    vault_skeyid(vault, &skeyid, ticket, skeyid_done), ERR_LONG);
	/* As many as may be under way, and one more. */
	auth = auth_ask(s, octets);
	for (i = 0; i < VAULT_UNDER_WAY + 1 && !err; i++)
		err = i % 2 ? vault_nonce(vault, ticket, nonce_done)
		            : vault_psk_auth(vault, &auth, ticket, auth_done);
	assert_int_equal(err, ERR_LIMIT);
	assert_int_equal(i, VAULT_UNDER_WAY + 1);
	await(s, &s->auths, 1 + VAULT_UNDER_WAY / 2);
	await(s, &s->nonces, VAULT_UNDER_WAY / 2);
	expect_auth(s, octets);
	assert_int_equal(vault_psk_auth(vault, &auth, ticket, auth_done), OK);
	free(large);
}

static void
remote_handshakes(void **state)
{
	struct scene s;

	(void)state;
	scene_remote(&s);
	whole_handshakes(&s);
	assert_int_equal(s.lost, 0);
	scene_fini(&s);
}

static void
local_handshakes(void **state)
{
	struct scene s;

	(void)state;
	scene_local(&s);
	whole_handshakes(&s);
	scene_fini(&s);
}

static void
remote_bounds(void **state)
{
	struct scene s;

	(void)state;
	scene_remote(&s);
	bounds(&s);
	assert_int_equal(s.lost, 0);
	scene_fini(&s); /* with one under way */
}

static void
local_bounds(void **state)
{
	struct scene s;

	(void)state;
	scene_local(&s);
	bounds(&s);
	scene_fini(&s);
}

/* Death and reload --------------------------------------------------------- */

static void
the_next_vault_answers(void **state)
{
	struct ticket ticket = { 1, 2, 3 };
	struct vault_skeyid skeyid = { 0 };
	struct vault_psk_auth auth;
	uint8_t octets[100];
	uint64_t handle;
	struct scene s;
	unsigned i;

	(void)state;
	scene_remote(&s);
	assert_int_equal(vault_nonce(s.env.vault, ticket, nonce_done), OK);
	await(&s, &s.nonces, 1);
	handle = s.nonce.handle;
	kill_vault(&s);
	auth = auth_ask(&s, octets);
	for (i = 0; i < 20; i++)
		assert_int_equal(
		    vault_psk_auth(s.env.vault, &auth, ticket, auth_done), OK);
	await(&s, &s.lost, 1);
	assert_int_equal(s.lost_err, ERR_IO);
	/* With nobody there, everything waits. */
	for (i = 0; i < 20; i++)
		assert_int_equal(
		    vault_psk_auth(s.env.vault, &auth, ticket, auth_done), OK);
	for (i = 0; i < 40; i++)
		assert_int_equal(
		    vault_nonce(s.env.vault, ticket, nonce_done), OK);
	skeyid.prf = alg_get(ALG_PRF_SHA1);
	skeyid.nonce = handle;
	skeyid.peer_nonce = view_of(octets, 32);
	assert_int_equal(
	    vault_skeyid(s.env.vault, &skeyid, ticket, skeyid_done), OK);
	start_vault(&s);
	assert_int_equal(vault_link_load(s.link, 1), OK);
	await(&s, &s.loads, 2);
	assert_int_equal(s.auths, 0);
	assert_int_equal(vault_remote_relink(s.env.vault, join(&s)), OK);
	await(&s, &s.skeyids, 1);
	/* Its nonce died with the vault. */
	assert_int_equal(s.skeyid_err, ERR_NOT_FOUND);
	await(&s, &s.auths, 40);
	await(&s, &s.nonces, 41);
	/* Made before, linked later. */
	vault_free(s.env.vault);
	s.env.vault = vault_remote_new(&s.env, s.loop, -1, NULL);
	assert_int_equal(
	    vault_psk_auth(s.env.vault, &auth, ticket, auth_done), OK);
	assert_int_equal(vault_remote_relink(s.env.vault, join(&s)), OK);
	await(&s, &s.auths, 41);
	expect_auth(&s, octets);
	scene_fini(&s);
}

static void
secrets_are_loaded_again(void **state)
{
	struct ticket ticket = { 1, 2, 3 };
	struct vault_psk_auth auth;
	uint8_t octets[100];
	struct scene s;

	(void)state;
	scene_remote(&s);
	assert_int_equal(s.loaded.count, 1);
	write_file(&s, "a.inc",
	    "@gw @one : PSK \"one secret\"\n"
	    "include c.inc\n");
	write_file(&s, "b.inc", "@gw @two : PSK \"two secret\"\n");
	write_file(&s, "c.inc", "@gw @alpha : PSK \"alpha secret\"\n");
	write_file(&s, "ipsec.secrets",
	    "include [ab].inc\n"
	    "include none*.inc\n"
	    "include missing.inc\n");
	assert_int_equal(vault_link_load(s.link, 2), OK);
	await(&s, &s.loads, 2);
	assert_int_equal(s.load_serial, 2);
	assert_int_equal(s.loaded.err, OK);
	assert_int_equal(s.loaded.count, 3);
	assert_int_equal(s.loaded.errors, 0);
	assert_non_null(strstr(s.loaded.text, "missing.inc"));
	assert_null(strstr(s.loaded.text, "secret\""));
	auth = auth_ask(&s, octets);
	assert_int_equal(
	    vault_psk_auth(s.env.vault, &auth, ticket, auth_done), OK);
	await(&s, &s.auths, 1);
	expect_auth(&s, octets);
	/* Two at once: the first is given up. */
	assert_int_equal(vault_link_load(s.link, 3), OK);
	assert_int_equal(vault_link_load(s.link, 4), OK);
	await(&s, &s.loads, 4);
	assert_int_equal(s.load_serial, 4);
	assert_int_equal(s.loaded.err, OK);
	assert_int_equal(s.loaded.count, 3);
	/* An error leaves all old secrets in force. */
	write_file(&s, "ipsec.secrets",
	    "@gw @x : PSK\n"
	    "@gw @one : PSK \"one secret\"\n");
	assert_int_equal(vault_link_load(s.link, 5), OK);
	await(&s, &s.loads, 5);
	assert_int_equal(s.loaded.err, ERR_SYNTAX);
	assert_non_null(strstr(s.loaded.text, "ipsec.secrets:1"));
	assert_int_equal(unlink(s.path), 0);
	assert_int_equal(mkdir(s.path, 0700), 0);
	assert_int_equal(vault_link_load(s.link, 6), OK);
	await(&s, &s.loads, 6);
	assert_int_equal(s.loaded.err, ERR_SYNTAX);
	assert_non_null(strstr(s.loaded.text, "not a regular file"));
	rmdir(s.path);
	assert_int_equal(
	    vault_psk_auth(s.env.vault, &auth, ticket, auth_done), OK);
	await(&s, &s.auths, 2);
	expect_auth(&s, octets);
	assert_int_equal(vault_link_level(s.link, LOG_LEVEL_DEBUG), OK);
	assert_int_equal(vault_link_load(s.link, 7), OK);
	await(&s, &s.loads, 7);
	assert_int_equal(s.ends, 0);
	scene_fini(&s);
}

/* Enemies ------------------------------------------------------------------ */

/* A vault that has been captured asks the parent for files. */
struct captive {
	unsigned done, files, problems;
	char problem[256];
};

static enum err
captive_file(void *arg, const struct ipc_frame *frame)
{
	struct captive *captive = arg;

	(void)frame;
	captive->files++;
	return OK;
}

static enum err
captive_problem(void *arg, const struct ipc_frame *frame)
{
	struct captive *captive = arg;
	const char *text = memchr(frame->body.at, 0, frame->body.len);
	size_t path =
	    text ? (size_t)(text + 1 - (const char *)frame->body.at) : 0;

	assert_non_null(text);
	captive->problems++;
	snprintf(captive->problem, sizeof(captive->problem), "%.*s",
	    (int)(frame->body.len - path), text + 1);
	return OK;
}

static enum err
captive_done(void *arg, const struct ipc_frame *frame)
{
	struct captive *captive = arg;

	if (frame->type == VAULTD_FETCHED)
		captive->done++;
	return OK;
}

static void
captive_closed(void *arg, enum err err, const char *why)
{
	(void)arg;
	(void)err;
	(void)why;
}

static void
captured_vault_reads_no_other_files(void **state)
{
	static const struct ipc_permit rows[] = {
		{ VAULTD_LOAD, IPC_IN, 1, VAULTD_PATH - 1, 0, captive_done },
		{ VAULTD_FILE, IPC_IN | IPC_FD, 1, VAULTD_PATH - 1, 0,
		    captive_file },
		{ VAULTD_PROBLEM, IPC_IN, 1, VAULTD_PATH + 255, 0,
		    captive_problem },
		{ VAULTD_FETCHED, IPC_IN, 0, 0, 0, captive_done },
		{ VAULTD_FETCH, IPC_OUT, 1, VAULTD_PATH - 1, 0, NULL },
	};
	static const struct {
		const char *secrets; /* path of ipsec.secrets; NULL: the real */
		const char *pattern;
		const char *problem; /* NULL: the file comes */
	} row[] = {
		{ NULL, "%s/ipsec.secrets", NULL },
		{ NULL, "%s/a.inc", NULL },
		{ NULL, "%s/[a].inc", NULL },
		{ NULL, "/etc/passwd", "neither beside" },
		{ NULL, "/etc/passw*", "neither beside" },
		{ NULL, "/etc/no.secrets", "no such file" },
		{ NULL, "%s/../../etc/passwd", ".." },
		{ NULL, "../etc/passwd", ".." },
		{ NULL, "%s/..", ".." },
		{ NULL, "/e*/passwd.secrets", "a directory" },
		{ "/etc/ipsec.secrets", "/etc/passwd", "neither beside" },
		{ "/etc/ipsec.secrets", "/etc/pass*", "neither beside" },
		{ "/etc/ipsec.secrets", "/etc/ipsec.d/no/x", "no such file" },
		{ "/etc/ipsec.secrets", "/etc/no.secrets", "no such file" },
		{ "/etc/ipsec.secrets", "%s/link.secrets", "a symbolic link" },
		{ NULL, "%s/link.secrets", NULL }, /* in root's directory */
		{ "/ipsec.secrets", "/etc/passwd", "neither beside" },
		{ "ipsec.secrets", "/etc/passwd", "neither beside" },
		{ "/usr/local/etc/ipsec.secrets", "/usr/local/etc/x",
		    "neither beside" },
		{ "/srv/etc/vpn/ipsec.secrets", "/srv/etc/vpn/none",
		    "no such file" },
	};
	struct scene s;
	char linked[96];
	size_t i;

	(void)state;
	scene_init(&s);
	write_file(&s, "a.inc", "@gw : PSK \"x y z\"\n");
	snprintf(linked, sizeof(linked), "%s/link.secrets", s.dir);
	assert_int_equal(symlink("/etc/passwd", linked), 0);
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		const struct vault_link_events events = { on_loaded, on_broken,
			on_closed, &s };
		struct captive captive = { 0 };
		struct vault_link *link;
		char pattern[256];
		struct ipc *ipc;
		int pair[2];

		assert_int_equal(ipc_pair(pair), OK);
		link = vault_link_new(s.loop, pair[0],
		    row[i].secrets ? row[i].secrets : s.path, &events);
		ipc = ipc_new(s.loop, pair[1], rows,
		    sizeof(rows) / sizeof(rows[0]), captive_closed, &captive);
		assert_non_null(link);
		assert_non_null(ipc);
		assert_int_equal(vault_link_load(link, 1), OK);
		if (row[i].pattern[0] == '%')
			snprintf(pattern, sizeof(pattern), "%s%s", s.dir,
			    row[i].pattern + 2);
		else
			snprintf(
			    pattern, sizeof(pattern), "%s", row[i].pattern);
		assert_int_equal(
		    ipc_send(ipc, VAULTD_FETCH, 1, pattern, strlen(pattern)),
		    OK);
		await(&s, &captive.done, 1);
		assert_int_equal(captive.files, row[i].problem ? 0 : 1);
		assert_int_equal(captive.problems, row[i].problem ? 1 : 0);
		if (row[i].problem)
			assert_non_null(
			    strstr(captive.problem, row[i].problem));
		ipc_free(ipc);
		vault_link_free(link);
	}
	unlink(linked);
	scene_fini(&s);
}

/* Whoever owns a file that is included decides about our keys. */
static void
included_files_are_roots(void **state)
{
	char path[160];
	struct scene s;

	(void)state;
	if (geteuid() != 0)
		skip();
	scene_init(&s);
	write_file(&s, "a.inc", "@gw @one : PSK \"one secret\"\n");
	write_file(&s, "b.inc", "@gw @two : PSK \"two secret\"\n");
	write_file(&s, "ipsec.secrets", "include [ab].inc\n");
	snprintf(path, sizeof(path), "%s/b.inc", s.dir);
	assert_int_equal(chown(path, 65534, 65534), 0);
	start_vault(&s);
	assert_int_equal(vault_link_load(s.link, 1), OK);
	await(&s, &s.loads, 1);
	assert_int_equal(s.loaded.count, 1);
	assert_non_null(strstr(s.loaded.text, "not owned by root"));
	scene_fini(&s);
}

struct raw {
	uint16_t type, flags;
	uint32_t len;
	uint64_t serial;
	uint8_t body[64];
};

/* Asks for a file so often that its answers, were they all given, would hold
 * all descriptors that the parent may have. */
static void
captured_vault_takes_no_descriptors(void **state)
{
	const struct vault_link_events events = { on_loaded, on_broken,
		on_closed, NULL };
	static uint8_t answer[IPC_DATAGRAM];
	unsigned files = 0, i;
	struct raw ask = { .type = VAULTD_FETCH, .serial = 1 };
	struct vault_link *link;
	struct timer timer;
	struct scene s;
	uint16_t type;
	int pair[2];

	(void)state;
	scene_init(&s);
	write_file(&s, "a.inc", "@gw : PSK \"x y z\"\n");
	assert_int_equal(ipc_pair(pair), OK);
	link = vault_link_new(s.loop, pair[0], s.path, &events);
	assert_non_null(link);
	assert_int_equal(vault_link_load(link, 1), OK);
	ask.len = (uint32_t)snprintf(
	    (char *)ask.body, sizeof(ask.body), "%s/a.inc", s.dir);
	for (i = 0; i < 1000; i++)
		assert_true(
		    send(pair[1], &ask, 16 + ((ask.len + 7u) & ~7u), 0) > 0);
	timer_init(&timer, stop, s.loop);
	for (i = 0; i < 100; i++) {
		timer_set(loop_timers(s.loop), &timer, 1);
		loop_run(s.loop);
	}
	while (recv(pair[1], answer, sizeof(answer), MSG_DONTWAIT) > 0) {
		memcpy(&type, answer, sizeof(type));
		files += type == VAULTD_FILE;
	}
	assert_true(files > 0 && files < 200);
	vault_link_free(link);
	close(pair[1]);
	scene_fini(&s);
}

static void
bad_requests_close_the_link(void **state)
{
	static const struct raw row[] = {
		{ VAULT_PSK_AUTH, 0, 0, 1, { 0 } },
		{ VAULT_PSK_AUTH, 0, 1, 1, { 0 } },
		{ VAULT_PSK_AUTH, 0, 5, 1, { 0xff, 0xff, 0xff, 0, 0 } },
		{ VAULT_PSK_AUTH, 0, 5, 1,
		    { ALG_SHA256_128, 0xff, 0xff, 0, 0 } },
		{ VAULT_PSK_AUTH, 0, 5, 1,
		    { ALG_PRF_SHA256, 2, 0xff, 0xff, 0 } },
		{ VAULT_PSK_AUTH, 0, 7, 1,
		    { ALG_PRF_SHA256, ID_IPV4_ADDR, 0, 1, 9, 0xff, 0 } },
		{ VAULT_PSK_AUTH, 0, 4, 1, { ALG_PRF_SHA256, 0xff, 0xff, 5 } },
		{ VAULT_NONCES, 0, 4, 1, { 0, 0, 0, 0 } },
		{ VAULT_NONCES, 0, 4, 1, { VAULTMSG_NONCES + 1, 0, 0, 0 } },
		{ VAULT_NONCES, 0, 5, 1, { 1, 0, 0, 0 } },
		{ VAULT_NONCE_DROP, 0, 7, 1, { 0 } },
		{ VAULT_SKEYID, 0, 9, 1, { ALG_PRF_SHA256 } },
		{ VAULT_SKEYID, 0, 14, 1,
		    { ALG_PRF_SHA256, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0xff, 0xff } },
		{ VAULT_PERMITS, 0, 13, 1,
		    { 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0 } },
		{ VAULT_PSK_AUTH_ANSWER, 0, 0, 1, { 0 } },
		{ VAULTD_LOAD, 0, 2, 1, { '/', 'x' } },
		{ 1, 0, 0, 1, { 0 } },
	};
	struct ticket ticket = { 1, 2, 3 };
	struct scene s;
	uint8_t octets[64];
	size_t i, at;
	int fd;

	(void)state;
	scene_remote(&s);
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		vault_free(s.env.vault);
		s.env.vault = NULL;
		fd = join(&s);
		assert_true(
		    send(fd, &row[i], 16 + ((row[i].len + 7u) & ~7u), 0) > 0);
		/* The end of the link, and no answer before. */
		for (at = 0; at < 1000; at++) {
			struct timer timer;
			ssize_t len;

			timer_init(&timer, stop, s.loop);
			timer_set(loop_timers(s.loop), &timer, 1);
			loop_run(s.loop);
			len = recv(fd, octets, sizeof(octets), MSG_DONTWAIT);
			assert_true(len <= 0);
			if (len == 0)
				break;
		}
		assert_in_range(at, 0, 999);
		close(fd);
		await(&s, &s.broken, (unsigned)i + 1);
		/* The vault itself lives. */
		s.nonces = 0;
		s.env.vault =
		    vault_remote_new(&s.env, s.loop, join(&s), on_lost);
		assert_int_equal(
		    vault_nonce(s.env.vault, ticket, nonce_done), OK);
		await(&s, &s.nonces, 1);
	}
	assert_int_equal(s.ends, 0);
	scene_fini(&s);
}

/* A vault that answers what was not asked loses its link, and requests wait
 * for another. */
static void
bad_answers_close_the_link(void **state)
{
	struct ticket ticket = { 1, 2, 3 };
	struct {
		struct raw raw;
		uint8_t more[4096];
	} frame;
	struct vault_psk_auth auth;
	struct raw asked;
	uint8_t octets[100];
	struct scene s;
	unsigned i;
	int pair[2];

	(void)state;
	scene_init(&s);
	for (i = 0; i < 6; i++) {
		memset(&frame, 0, sizeof(frame));
		assert_int_equal(ipc_pair(pair), OK);
		s.lost = 0;
		s.env.vault =
		    vault_remote_new(&s.env, s.loop, pair[0], on_lost);
		auth = auth_ask(&s, octets);
		assert_int_equal(
		    vault_psk_auth(s.env.vault, &auth, ticket, auth_done), OK);
		await(&s, &s.lost, 0);
		frame.raw.type = VAULT_PSK_AUTH_ANSWER;
		frame.raw.len = sizeof(struct vaultmsg_psk_auth);
		if (i == 0)
			frame.raw.serial = 12345;
		if (i == 1) {
			frame.raw.type = VAULT_SKEYID_ANSWER;
			frame.raw.len = sizeof(struct vaultmsg_skeyid);
		}
		if (i == 2)
			frame.raw.len--;
		if (i >= 3) {
			frame.raw.type = VAULT_NONCES_ANSWER;
			frame.raw.len = 8;
			frame.raw.serial = i == 3 ? 7 : 1;
			if (i == 4)
				frame.raw.body[4] = 1; /* one, not there */
			if (i == 5)
				frame.raw.body[4] = 33;
			if (i == 5)
				frame.raw.len += 33 * 40;
		}
		assert_true(send(pair[1], &frame,
		                16 + ((frame.raw.len + 7u) & ~7u), 0) > 0);
		await(&s, &s.lost, 1);
		assert_int_equal(s.lost_err, ERR_REFUSED);
		assert_int_equal(s.auths, 0);
		close(pair[1]);
		/* The request comes to the next one. */
		assert_int_equal(ipc_pair(pair), OK);
		assert_int_equal(vault_remote_relink(s.env.vault, pair[0]), OK);
		vault_free(s.env.vault); /* sends what is queued */
		s.env.vault = NULL;
		assert_true(
		    recv(pair[1], &asked, sizeof(asked), MSG_DONTWAIT) > 16);
		assert_int_equal(asked.type, VAULT_PSK_AUTH);
		close(pair[1]);
	}
	scene_fini(&s);
}

/* Every cut of an encoded request is refused, and nothing leaks. */
static void
messages_are_read_carefully(void **state)
{
	uint8_t octets[400], peer[32] = { 1 };
	struct vault_skeyid skeyid = { 0 }, skeyid_read;
	struct vault_permits permits = { 0 }, permits_read;
	struct vault_psk_auth auth = { 0 }, auth_read;
	struct scene s;
	struct buf buf;
	size_t i, ends;

	(void)state;
	scene_init(&s);
	skeyid.prf = alg_get(ALG_PRF_SHA384);
	skeyid.nonce = 0x1122334455667788;
	skeyid.initiator = true;
	skeyid.local = s.gw;
	assert_true(addr_parse(&skeyid.local_addr, "192.0.2.1"));
	assert_true(addr_parse(&skeyid.remote_addr, "2001:db8::1"));
	skeyid.peer_nonce = view_of(peer, sizeof(peer));
	buf_init(&buf, octets, sizeof(octets));
	vaultmsg_put_skeyid(&buf, &skeyid);
	assert_false(buf.full);
	assert_int_equal(vaultmsg_get_skeyid(buf_done(&buf), &skeyid_read), OK);
	assert_ptr_equal(skeyid_read.prf, skeyid.prf);
	assert_int_equal(skeyid_read.nonce, skeyid.nonce);
	assert_true(skeyid_read.initiator);
	assert_true(ident_equal(skeyid_read.local, s.gw));
	assert_null(skeyid_read.remote);
	assert_true(addr_equal(&skeyid_read.local_addr, &skeyid.local_addr));
	assert_true(addr_equal(&skeyid_read.remote_addr, &skeyid.remote_addr));
	assert_true(view_equal(skeyid_read.peer_nonce, skeyid.peer_nonce));
	vaultmsg_done(skeyid_read.local, skeyid_read.remote);
	ends = buf.len - sizeof(peer);
	for (i = 0; i < ends; i++)
		assert_int_equal(
		    vaultmsg_get_skeyid(view_of(octets, i), &skeyid_read),
		    ERR_SHORT);

	auth.prf = alg_get(ALG_PRF_SHA1);
	auth.local = s.gw;
	auth.remote = s.alpha;
	buf_init(&buf, octets, sizeof(octets));
	vaultmsg_put_psk_auth(&buf, &auth);
	assert_int_equal(vaultmsg_get_psk_auth(buf_done(&buf), &auth_read), OK);
	assert_true(ident_equal(auth_read.remote, s.alpha));
	assert_int_equal(auth_read.local_addr.family, ADDR_NONE);
	assert_int_equal(auth_read.octets.len, 0);
	vaultmsg_done(auth_read.local, auth_read.remote);
	for (i = 0; i < buf.len; i++)
		assert_int_equal(
		    vaultmsg_get_psk_auth(view_of(octets, i), &auth_read),
		    ERR_SHORT);

	permits.secret = 99;
	permits.local = s.gw;
	permits.remote = s.alpha;
	buf_init(&buf, octets, sizeof(octets));
	vaultmsg_put_permits(&buf, &permits);
	assert_int_equal(
	    vaultmsg_get_permits(buf_done(&buf), &permits_read), OK);
	assert_int_equal(permits_read.secret, 99);
	vaultmsg_done(permits_read.local, permits_read.remote);
	for (i = 0; i < buf.len; i++)
		assert_int_equal(
		    vaultmsg_get_permits(view_of(octets, i), &permits_read),
		    ERR_SHORT);
	assert_int_equal(
	    vaultmsg_get_permits(view_of(octets, buf.len + 1), &permits_read),
	    ERR_LONG);
	scene_fini(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(local_handshakes),
		cmocka_unit_test(local_bounds),
		cmocka_unit_test(remote_handshakes),
		cmocka_unit_test(remote_bounds),
		cmocka_unit_test(the_next_vault_answers),
		cmocka_unit_test(secrets_are_loaded_again),
		cmocka_unit_test(captured_vault_reads_no_other_files),
		cmocka_unit_test(captured_vault_takes_no_descriptors),
		cmocka_unit_test(included_files_are_roots),
		cmocka_unit_test(bad_requests_close_the_link),
		cmocka_unit_test(bad_answers_close_the_link),
		cmocka_unit_test(messages_are_read_carefully),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
