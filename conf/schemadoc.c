/*
 * schemadoc: the tables of the manual, made from the schema when Orthrus is
 * built.
 *
 *   schemadoc PAGE.in    copies the page; a line @setup@, @conn@, @end@,
 *                        @others@ or @kinds@ becomes that table in mdoc(7)
 *   schemadoc --names    every keyword that the schema knows, one a line
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/schema.h"
#include "conf/secretfile.h"

#define NAME 64

/* "Cm leftid , rightid" or "Cm auto". */
static void
print_names(const struct option *option)
{
	char left[NAME], right[NAME];

	option_name(option, "left", left, sizeof left);
	option_name(option, "right", right, sizeof right);
	if (strcmp(left, right) == 0)
		printf("%s", left);
	else
		printf("%s , %s", left, right);
}

static void
print_time(const char *before, unsigned long long seconds)
{
	static const struct {
		unsigned seconds;
		char letter;
	} unit[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
	size_t i = seconds == 0 ? 3 : 0;

	while (seconds % unit[i].seconds != 0)
		i++;
	printf("%s\n.Li %llu%c\n", before, seconds / unit[i].seconds,
	    unit[i].letter);
}

static void
print_range(const struct option *option)
{
	if (option->type == TYPE_TIME) {
		print_time("From", option->min);
		print_time("to", option->max);
		printf(".Pq bare numbers are seconds .\n");
	} else if (option->type == TYPE_NUMBER ||
	           option->type == TYPE_PERCENT) {
		printf("From %llu to %llu.\n", (unsigned long long)option->min,
		    (unsigned long long)option->max);
	}
}

static void
print_row(const struct option *option)
{
	const char *macro = option->type == TYPE_WORD ||
	                            option->type == TYPE_BOOL ||
	                            strchr(option->values, '|')
	                        ? "Cm"
	                        : "Ar";
	const char *word = option->values;

	printf(".It Cm ");
	print_names(option);
	printf(" Ns = Ns %s ", macro);
	for (; *word != '\0'; word++)
		if (option->type == TYPE_WORD && *word == ' ')
			printf(" | ");
		else
			putchar(*word);
	printf("\n%s\n", option->help);
	print_range(option);
	if (option->fallback[0] != '\0')
		printf("The default is\n.Cm %s .\n", option->fallback);
	if (option->aliases[0] != '\0')
		printf("Also spelled\n.Cm %s .\n", option->aliases);
}

static void
print_section(unsigned section)
{
	printf(".Bl -tag -width Ds\n");
	for (size_t i = 0; i < option_count; i++)
		if (options[i].section == section &&
		    options[i].status == OPTION_DONE)
			print_row(&options[i]);
	printf(".El\n");
}

static void
print_status(unsigned status)
{
	printf(".Bl -tag -width Ds -compact\n");
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &options[i];

		if (option->status != status)
			continue;
		printf(".It Cm ");
		print_names(option);
		printf("\n");
		if (option->help[0] != '\0')
			printf("%s.\n", option->help);
		if (option->values[0] != '\0')
			printf("Nothing is said about\n.Cm %s .\n",
			    option->values);
	}
	printf(".El\n");
}

static void
print_others(void)
{
	printf("These are refused, because the connection would mean "
	       "something else without them:\n.Pp\n");
	print_status(OPTION_REFUSED);
	printf(".Pp\nWithout these a connection goes on, with a warning:\n"
	       ".Pp\n");
	print_status(OPTION_WITHOUT);
	printf(".Pp\nThese have had no meaning for long and are left out, "
	       "with a warning:\n.Pp\n");
	print_status(OPTION_GONE);
}

static void
print_kinds(void)
{
	printf(".Bl -tag -width Ds -compact\n");
	for (size_t i = 0; secretfile_kinds[i] != NULL; i++)
		printf(".It Cm %s\n%s\n", secretfile_kinds[i],
		    i == 0 ? "A pre-shared key." : "Left out, with a warning.");
	printf(".El\n");
}

static void
print_all_names(void)
{
	char name[NAME];

	for (size_t i = 0; i < option_count; i++) {
		option_name(&options[i], "left", name, sizeof name);
		puts(name);
		if (options[i].section != SECTION_END)
			continue;
		option_name(&options[i], "right", name, sizeof name);
		puts(name);
	}
}

static int
copy_page(const char *path)
{
	FILE *page = fopen(path, "r");
	char line[1024];

	if (page == NULL) {
		perror(path);
		return 1;
	}
	while (fgets(line, sizeof line, page) != NULL) {
		if (strcmp(line, "@setup@\n") == 0)
			print_section(SECTION_SETUP);
		else if (strcmp(line, "@conn@\n") == 0)
			print_section(SECTION_CONN);
		else if (strcmp(line, "@end@\n") == 0)
			print_section(SECTION_END);
		else if (strcmp(line, "@others@\n") == 0)
			print_others();
		else if (strcmp(line, "@kinds@\n") == 0)
			print_kinds();
		else
			fputs(line, stdout);
	}
	fclose(page);
	return fflush(stdout) != 0 || ferror(stdout);
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: schemadoc PAGE.in | --names\n");
		return 2;
	}
	if (strcmp(argv[1], "--names") == 0) {
		print_all_names();
		return 0;
	}
	return copy_page(argv[1]);
}
