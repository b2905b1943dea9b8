#include "conf/secretpath.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the directory that path stands in ends: behind its last slash. */
static size_t
dir_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash + 1 - path) : 0;
}

/* A directory such as /etc holds other people's secrets as well: there, what
 * belongs to us has a directory of its own. */
static bool
is_shared(const char *path, size_t len)
{
	return len <= 1 ||
	       (len >= 5 && memcmp(path + len - 5, "/etc/", 5) == 0);
}

static bool
is_beneath(const char *secrets, const char *path)
{
	static const char own[] = "ipsec.d/";
	size_t len = dir_len(secrets);

	if (strncmp(path, secrets, len) != 0 || (len == 0 && path[0] == '/'))
		return false;
	return !is_shared(secrets, len) ||
	       strncmp(path + len, own, strlen(own)) == 0;
}

const char *
secretpath_problem(const char *secrets, const char *path)
{
	size_t len = dir_len(path);

	if (strcmp(path, secrets) == 0)
		return NULL;
	if (strstr(path, "/../") || strncmp(path, "../", 3) == 0 ||
	    strcmp(path + len, "..") == 0)
		return "a path with .. in it";
	if (strcspn(path, "*?[") < len && access(path, F_OK) != 0)
		return "a pattern in the name of a directory";
	if (!is_beneath(secrets, path) && !strstr(path + len, ".secrets"))
		return "neither beside ipsec.secrets nor named *.secrets";
	return NULL;
}

int
secretpath_open(const char *secrets, const char *path, const char **problem)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat stat;
	int fd;

	*problem = secretpath_problem(secrets, path);
	if (*problem)
		return -1;
	/* In a directory that is not ours the name may be somebody else's link
	 * to a file of root's. */
	if (strcmp(path, secrets) != 0 && !is_beneath(secrets, path))
		flags |= O_NOFOLLOW;
	fd = open(path, flags);
	if (fd < 0) {
		*problem = errno == ENOENT  ? BUNDLE_ABSENT
		           : errno == ELOOP ? "a symbolic link"
		                            : strerror(errno);
		return -1;
	}
	if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode))
		*problem = "not a regular file";
	else if (strcmp(path, secrets) != 0 && stat.st_uid != 0 &&
	         stat.st_uid != geteuid())
		*problem = "not owned by root";
	if (*problem) {
		close(fd);
		return -1;
	}
	return fd;
}

bool
secretpath_exposed(const char *path)
{
	struct stat stat_of;

	return stat(path, &stat_of) == 0 && (stat_of.st_mode & 077) != 0;
}

/* Root opens anything; the daemon has given that up by then. */
static bool
daemon_may_read(int fd)
{
	struct stat stat;

	return fstat(fd, &stat) == 0 &&
	       (stat.st_uid == geteuid() || (stat.st_mode & S_IROTH) ||
	           (stat.st_gid == getegid() && (stat.st_mode & S_IRGRP)));
}

static enum err
read_one(const void *secrets, struct bundle *bundle, const char *pattern,
    const char *path)
{
	const char *problem;
	int fd = secretpath_open(secrets, path, &problem);
	enum err err;

	if (fd < 0)
		return bundle_add_problem(bundle, pattern, path, problem);
	if (daemon_may_read(fd))
		err = bundle_add_fd(bundle, pattern, path, fd);
	else
		err = bundle_add_problem(bundle, pattern, path,
		    "belongs to another user, and the daemon cannot read it");
	close(fd);
	return err;
}

enum err
secretpath_read(void *arg, struct bundle *bundle, const char *pattern)
{
	const char *problem = secretpath_problem(arg, pattern);

	if (problem)
		return bundle_add_problem(bundle, pattern, pattern, problem);
	return bundle_glob(bundle, pattern, read_one, arg);
}
