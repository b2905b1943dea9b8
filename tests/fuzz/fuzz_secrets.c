/* ipsec.secrets: the text, and after a NUL the text of what it may include. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "conf/secrets.h"

static void
ask(const struct secrets *secrets)
{
	const struct secrets_entry *found[16], *best;
	struct ident *local, *remote;
	struct addr local_addr, remote_addr;
	const char *problem;
	size_t count;

	addr_parse(&local_addr, "192.0.2.1");
	addr_parse(&remote_addr, "203.0.113.9");
	HOLDS(ident_parse(&local, "gate.example", &problem) == OK);
	HOLDS(ident_parse(&remote, "mac@example.org", &problem) == OK);
	best = secrets_find_best(
	    secrets, local, remote, &local_addr, &remote_addr);
	count = secrets_candidates(
	    secrets, local, remote, &local_addr, &remote_addr, found, 16);
	HOLDS(count <= 16);
	HOLDS((best != NULL) == (count > 0));
	for (size_t i = 0; i < count; i++) {
		HOLDS(secrets_by_number(secrets, found[i]->number) == found[i]);
		HOLDS(found[i]->psk.len <= SECRET_OCTETS);
		HOLDS(secret_permits(
		    found[i], local, remote, &local_addr, &remote_addr));
		secret_entropy(secret_view(&found[i]->psk));
	}
	HOLDS(best == NULL || best == found[0]);
	secrets_candidates(
	    secrets, NULL, NULL, &local_addr, &remote_addr, found, 16);
	ident_unref(local);
	ident_unref(remote);
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
	const uint8_t *nul = memchr(octets, 0, len);
	size_t first = nul == NULL ? len : (size_t)(nul - octets);
	struct secrets *secrets;
	struct diags diags = { .count = 0 };
	struct bundle bundle;

	bundle_init(&bundle, NULL, NULL);
	HOLDS(bundle_add(&bundle, "/etc/ipsec.secrets", "/etc/ipsec.secrets",
	          view_of(octets, first)) == OK);
	if (nul != NULL)
		HOLDS(bundle_add(&bundle, "/etc/more.secrets",
		          "/etc/more.secrets",
		          view_of(nul + 1, len - first - 1)) == OK);
	secrets = secrets_load(&bundle, "/etc/ipsec.secrets", 7, &diags);
	if (secrets != NULL)
		ask(secrets);
	secrets_unref(secrets);
	diags_fini(&diags);
	bundle_fini(&bundle);
	return 0;
}
