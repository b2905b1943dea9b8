/* ipsec.conf: the text, and after a NUL the text of what it may include. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "conf/conf.h"
#include "conf/print.h"

static struct policy *
load(struct bundle *bundle, bool keep_going, struct diags *diags)
{
	struct addr own;
	struct conf_options options = { .path = "/etc/ipsec.conf",
		.own = &own,
		.own_count = 1,
		.keep_going = keep_going };

	addr_parse(&own, "192.0.2.1");
	memset(diags, 0, sizeof(*diags));
	return conf_load(bundle, &options, diags);
}

static void
ask(const struct policy *policy)
{
	struct conn *found[8];
	struct addr local, remote;
	struct ts_list list;
	size_t i, count;

	addr_parse(&local, "192.0.2.1");
	addr_parse(&remote, "203.0.113.9");
	count = policy_candidates(policy, &local, &remote, 2, found, 8);
	HOLDS(count <= 8);
	policy_identify(found, count, NULL, &local, NULL, &remote);
	for (i = 0; i < policy->count; i++) {
		HOLDS(policy_conn(policy, policy->conns[i]->name) ==
		      policy->conns[i]);
		conn_ts(&policy->conns[i]->local, &local, &list);
		conn_ts(&policy->conns[i]->remote, &remote, &list);
		ident_unref(conn_local_id(policy->conns[i], &local));
		ident_unref(conn_remote_id(policy->conns[i], &remote));
		conn_rekey_ms(policy->conns[i], 3600000, 12345);
	}
}

static void
same(enum policy_change change, struct conn *old_conn, struct conn *new_conn,
    void *arg)
{
	(void)old_conn;
	(void)new_conn;
	(void)arg;
	HOLDS(change == CHANGE_SAME);
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
	static FILE *nowhere;
	const uint8_t *nul = memchr(octets, 0, len);
	size_t first = nul == NULL ? len : (size_t)(nul - octets);
	struct policy *policy, *again;
	struct diags diags;
	struct bundle bundle;

	if (nowhere == NULL)
		nowhere = fopen("/dev/null", "w");
	bundle_init(&bundle, NULL, NULL);
	HOLDS(bundle_add(&bundle, "/etc/ipsec.conf", "/etc/ipsec.conf",
	          view_of(octets, first)) == OK);
	if (nul != NULL)
		HOLDS(bundle_add(&bundle, "/etc/more.conf", "/etc/more.conf",
		          view_of(nul + 1, len - first - 1)) == OK);
	policy = load(&bundle, true, &diags);
	if (nowhere != NULL) {
		conf_print(nowhere, &diags, policy);
		conf_print_json(nowhere, &diags, policy);
	}
	if (policy != NULL) {
		policy_diff(NULL, policy, NULL, NULL);
		ask(policy);
		diags_fini(&diags);
		/* Reading the same again changes nothing. */
		again = load(&bundle, true, &diags);
		HOLDS(again != NULL && again->count == policy->count);
		policy_diff(policy, again, same, NULL);
		policy_unref(again);
	}
	policy_unref(policy);
	diags_fini(&diags);
	bundle_fini(&bundle);
	return 0;
}
