#include "common/env.h"

#include <limits.h>

#include <openssl/rand.h>

bool
env_random(struct env *env, void *octets, size_t len)
{
	return env->random(env->random_arg, octets, len);
}

uint32_t
env_random_u32(struct env *env)
{
	uint32_t value = 0;

	if (!env_random(env, &value, sizeof(value)))
		return 0;
	return value;
}

uint64_t
env_serial(struct env *env)
{
	return ++env->serial;
}

uint64_t
env_now(const struct env *env)
{
	return env->timers->now_ms;
}

void
env_count(struct env *env, enum counter counter)
{
	env->counter[counter]++;
}

void
env_log(struct env *env, enum log_level level, const char *format, ...)
{
	va_list args;

	if (env->log == NULL || level > env->log->level)
		return;
	va_start(args, format);
	log_vwrite(env->log, level, format, args);
	va_end(args);
}

bool
env_random_openssl(void *arg, void *octets, size_t len)
{
	(void)arg;
	if (len > INT_MAX)
		return false;
	return RAND_bytes(octets, (int)len) == 1;
}
