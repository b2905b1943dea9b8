#include "common/env.h"

#include <limits.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <string.h>

#include "common/mem.h"

/*
 * A call of OpenSSL's generator costs 0.6 us however little it is asked for,
 * and a handshake asks a dozen times for some octets. Each thread draws a
 * stock; what it has given out is wiped at once, and a forked process throws
 * its copy away.
 */
#define STOCK      512
#define STOCK_MOST 64 /* larger requests go to the generator */

struct stock {
	size_t left; /* octets at the end of the array not given out */
	uint8_t octets[STOCK];
};

static _Thread_local struct stock stock;
static pthread_once_t once = PTHREAD_ONCE_INIT;

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

static void
stock_forget(void)
{
	mem_wipe(&stock, sizeof(stock));
}

static void
stock_start(void)
{
	/* Without it a child of fork would give out what its parent does. */
	(void)pthread_atfork(NULL, NULL, stock_forget);
}

bool
env_random_openssl(void *arg, void *octets, size_t len)
{
	uint8_t *from;

	(void)arg;
	if (len > INT_MAX)
		return false;
	if (len > STOCK_MOST)
		return RAND_bytes(octets, (int)len) == 1;
	if (len > stock.left) {
		pthread_once(&once, stock_start);
		if (RAND_bytes(stock.octets, STOCK) != 1)
			return false;
		stock.left = STOCK;
	}
	from = stock.octets + STOCK - stock.left;
	memcpy(octets, from, len);
	mem_wipe(from, len);
	stock.left -= len;
	return true;
}
