#include "conf/print.h"

#include <string.h>

#include "common/buf.h"
#include "common/ident.h"
#include "common/proposal.h"
#include "common/ts.h"

#define TEXT 2048

static const char *const auto_words[] = { "ignore", "add", "route", "start" };
static const char *const version_words[] = { "ike", "ikev1", "ikev2" };
static const char *const mode_words[] = { "tunnel", "transport" };
static const char *const dpd_words[] = { "none", "clear", "hold", "restart" };

static const char *
host_text(const struct conn_host *host, char text[static 300])
{
	char first[ADDR_TEXT], last[ADDR_TEXT];
	int bits;

	switch (host->kind) {
	case HOST_ADDR:
		return addr_text(&host->addr, text);
	case HOST_RANGE:
		addr_text(&host->addr, first);
		addr_text(&host->last, last);
		bits = addr_range_prefix(&host->addr, &host->last);
		if (bits >= 0)
			snprintf(text, 300, "%s/%d", first, bits);
		else
			snprintf(text, 300, "%s-%s", first, last);
		return text;
	case HOST_NAME:
		return host->name;
	case HOST_DEFAULTROUTE:
		return "%defaultroute";
	default:
		return host->addr.family == ADDR_V4   ? "%any4"
		       : host->addr.family == ADDR_V6 ? "%any6"
		                                      : "%any";
	}
}

char *
conf_hosts_text(const struct conn_end *end, char *text, size_t size)
{
	size_t used = 0;
	char host[300];

	text[0] = '\0';
	for (size_t i = 0; i < end->host_count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s",
		    i > 0 ? "," : "", host_text(&end->host[i], host));
	return text;
}

/* The identity as configured, or what stands in for one. */
static const char *
end_id_text(
    const struct conn_end *end, bool local, char text[static IDENT_TEXT])
{
	bool one = end->host_count == 1 && end->host[0].kind == HOST_ADDR;

	if (end->id == NULL)
		return local || one ? "its address" : "%any";
	return ident_text(end->id, text);
}

/* For people ------------------------------------------------------------- */

static void
print_end(FILE *out, const char *label, const struct conn_end *end, bool local)
{
	char text[TEXT], id[IDENT_TEXT];

	fprintf(
	    out, "    %-8s %s", label, conf_hosts_text(end, text, sizeof text));
	fprintf(out, "  id %s", end_id_text(end, local, id));
	ts_list_text(&end->subnets, text, sizeof text);
	fprintf(out, "  %s\n", text);
}

static void
print_conn(FILE *out, const struct conn *conn)
{
	char text[TEXT];

	fprintf(out, "%s  (%s)  auto=%s keyexchange=%s type=%s\n", conn->name,
	    conn->source, auto_words[conn->autostart & 3],
	    version_words[conn->keyexchange % 3], mode_words[conn->mode & 1]);
	print_end(out, "local", &conn->local, true);
	print_end(out, "remote", &conn->remote, false);
	proposals_text(&conn->ike, text, sizeof text);
	fprintf(out, "    %-8s %s  %llu s\n", "ike", text,
	    (unsigned long long)(conn->ike_lifetime_ms / 1000));
	proposals_text(&conn->esp, text, sizeof text);
	fprintf(out, "    %-8s %s  %llu s\n", "esp", text,
	    (unsigned long long)(conn->lifetime_ms / 1000));
	if (conn->dpd_action != 0)
		fprintf(out, "    %-8s %s after %llu s\n", "dpd",
		    dpd_words[conn->dpd_action & 3],
		    (unsigned long long)(conn->dpd_delay_ms / 1000));
	if (conn->weak[0] != '\0')
		fprintf(out, "    %-8s %s\n", "weak", conn->weak);
}

void
conf_print(FILE *out, const struct diags *diags, const struct policy *policy)
{
	char text[TEXT];

	for (size_t i = 0; i < diags->count; i++)
		fprintf(
		    out, "%s\n", diag_text(&diags->item[i], text, sizeof text));
	for (size_t i = 0; policy != NULL && i < policy->count; i++)
		print_conn(out, policy->conns[i]);
	fprintf(out, "%zu connection%s, %zu error%s, %zu warning%s\n",
	    policy == NULL ? 0 : policy->count,
	    policy != NULL && policy->count == 1 ? "" : "s", diags->errors,
	    diags->errors == 1 ? "" : "s", diags->warnings,
	    diags->warnings == 1 ? "" : "s");
}

/* For programs ----------------------------------------------------------- */

/* "name":"text", with a comma behind it unless it is the last. */
static void
json_text(FILE *out, const char *name, const char *text, const char *behind)
{
	char escaped[6 * TEXT];

	buf_escape_json(escaped, sizeof escaped, view_text(text));
	fprintf(out, "\"%s\":\"%s\"%s", name, escaped, behind);
}

static void
json_number(FILE *out, const char *name, uint64_t number, const char *behind)
{
	fprintf(out, "\"%s\":%llu%s", name, (unsigned long long)number, behind);
}

static void
json_end(FILE *out, const char *name, const struct conn_end *end, bool local)
{
	char text[TEXT], id[IDENT_TEXT];

	fprintf(out, "\"%s\":{", name);
	json_text(out, "hosts", conf_hosts_text(end, text, sizeof text), ",");
	json_text(out, "id", end_id_text(end, local, id), ",");
	ts_list_text(&end->subnets, text, sizeof text);
	json_text(out, "subnets", text, "},");
}

static void
json_conn(FILE *out, const struct conn *conn)
{
	char text[TEXT];

	fputc('{', out);
	json_text(out, "name", conn->name, ",");
	json_text(out, "source", conn->source, ",");
	json_text(out, "auto", auto_words[conn->autostart & 3], ",");
	json_text(
	    out, "keyexchange", version_words[conn->keyexchange % 3], ",");
	json_text(out, "type", mode_words[conn->mode & 1], ",");
	json_end(out, "local", &conn->local, true);
	json_end(out, "remote", &conn->remote, false);
	json_text(
	    out, "ike", proposals_text(&conn->ike, text, sizeof text), ",");
	json_text(
	    out, "esp", proposals_text(&conn->esp, text, sizeof text), ",");
	json_number(out, "ikelifetime_s", conn->ike_lifetime_ms / 1000, ",");
	json_number(out, "lifetime_s", conn->lifetime_ms / 1000, ",");
	json_text(out, "dpdaction", dpd_words[conn->dpd_action & 3], ",");
	json_text(out, "weak", conn->weak, "}");
}

static void
json_diag(FILE *out, const struct diag *diag)
{
	fputc('{', out);
	json_text(
	    out, "level", diag->level == DIAG_ERROR ? "error" : "warning", ",");
	json_text(out, "file", diag->file, ",");
	json_number(out, "line", diag->line, ",");
	json_number(out, "column", diag->column, ",");
	json_text(out, "text", diag->text, "}");
}

void
conf_print_json(
    FILE *out, const struct diags *diags, const struct policy *policy)
{
	fputc('{', out);
	json_number(out, "errors", diags->errors, ",");
	json_number(out, "warnings", diags->warnings, ",");
	fprintf(out, "\"diagnostics\":[");
	for (size_t i = 0; i < diags->count; i++) {
		fputs(i > 0 ? "," : "", out);
		json_diag(out, &diags->item[i]);
	}
	fprintf(out, "],\"connections\":[");
	for (size_t i = 0; policy != NULL && i < policy->count; i++) {
		fputs(i > 0 ? "," : "", out);
		json_conn(out, policy->conns[i]);
	}
	fprintf(out, "]}\n");
}
