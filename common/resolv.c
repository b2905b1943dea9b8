#include "common/resolv.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The next word of a line; NULL at its end or at a comment. */
static char *
next_word(char **line)
{
	char *word = *line + strspn(*line, " \t\r");

	if (*word == '\0' || *word == '#' || *word == ';') {
		*line = word;
		return NULL;
	}
	*line = word + strcspn(word, " \t\r");
	if (**line != '\0')
		*(*line)++ = '\0';
	return word;
}

static char *
next_line(char **text)
{
	char *line = *text, *end;

	if (*line == '\0')
		return NULL;
	end = line + strcspn(line, "\n");
	*text = *end ? end + 1 : end;
	*end = '\0';
	return line;
}

/* "timeout:3" and the like; bounded as resolv.conf(5) says. */
static void
option(struct resolv *resolv, const char *word)
{
	static const struct {
		const char *name;
		unsigned min, max;
	} known[] = { { "timeout:", 1, 30 }, { "attempts:", 1, 5 },
		{ "ndots:", 0, 15 } };
	unsigned *const field[] = { &resolv->timeout_ms, &resolv->attempts,
		&resolv->ndots };
	size_t i, len;

	for (i = 0; i < 3; i++) {
		unsigned long value;

		len = strlen(known[i].name);
		if (strncmp(word, known[i].name, len) != 0)
			continue;
		value = strtoul(word + len, NULL, 10);
		if (value < known[i].min)
			value = known[i].min;
		if (value > known[i].max)
			value = known[i].max;
		*field[i] = (unsigned)value * (i == 0 ? 1000 : 1);
	}
}

static void
read_resolv(struct resolv *resolv, char *text)
{
	char *line, *word;

	while ((line = next_line(&text))) {
		word = next_word(&line);
		if (!word)
			continue;
		if (strcmp(word, "nameserver") == 0) {
			word = next_word(&line);
			if (word && resolv->server_count < RESOLV_SERVERS &&
			    addr_parse(
			        &resolv->server[resolv->server_count], word))
				resolv->server_count++;
		} else if (strcmp(word, "search") == 0 ||
		           strcmp(word, "domain") == 0) {
			/* The last of these lines counts. */
			resolv->search_count = 0;
			while ((word = next_word(&line))) {
				size_t len = strlen(word);

				if (resolv->search_count == RESOLV_SEARCH ||
				    len >= RESOLV_NAME ||
				    strcmp(word, ".") == 0)
					continue;
				memcpy(resolv->search[resolv->search_count++],
				    word, len + 1);
			}
		} else if (strcmp(word, "options") == 0) {
			while ((word = next_word(&line)))
				option(resolv, word);
		}
	}
	if (resolv->server_count == 0 &&
	    addr_parse(&resolv->server[0], "127.0.0.1"))
		resolv->server_count = 1;
}

static bool
read_hosts(struct resolv *resolv, char *text)
{
	struct resolv_host *grown;
	char *line, *word;
	struct addr addr;

	while ((line = next_line(&text))) {
		word = next_word(&line);
		if (!word || !addr_parse(&addr, word))
			continue;
		while ((word = next_word(&line))) {
			/* Doubling: at powers of two. */
			if ((resolv->host_count & (resolv->host_count - 1)) ==
			    0) {
				grown = reallocarray(resolv->hosts,
				    resolv->host_count ? resolv->host_count * 2
				                       : 1,
				    sizeof(*grown));
				if (!grown)
					return false;
				resolv->hosts = grown;
			}
			resolv->hosts[resolv->host_count].addr = addr;
			resolv->hosts[resolv->host_count].name = word;
			resolv->host_count++;
		}
	}
	return true;
}

void
resolv_fini(struct resolv *resolv)
{
	free(resolv->hosts);
	free(resolv->hosts_text);
	memset(resolv, 0, sizeof(*resolv));
}

enum err
resolv_read(struct resolv *resolv, const char *text, const char *hosts)
{
	char *copy;

	memset(resolv, 0, sizeof(*resolv));
	resolv->timeout_ms = 5000;
	resolv->attempts = 2;
	resolv->ndots = 1;
	if (text) {
		copy = strdup(text);
		if (!copy)
			return ERR_NOMEM;
		read_resolv(resolv, copy);
		free(copy);
	}
	if (!hosts)
		return OK;
	resolv->hosts_text = strdup(hosts);
	if (!resolv->hosts_text || !read_hosts(resolv, resolv->hosts_text)) {
		resolv_fini(resolv);
		return ERR_NOMEM;
	}
	return OK;
}
