#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "tests/play/play.h"

#define STEPS 32 /* of one script, at most */

struct scene {
	struct play *play;
	struct gateway *gate, *peer;
	unsigned version;
	/* What the peer's next sealed message shall be. */
	const uint8_t *sealed;
	size_t sealed_len;
};

static void
impair(struct env *env, uint8_t *first, struct buf *chain)
{
	struct scene *scene = env->impair_arg;

	if (scene->sealed_len == 0)
		return;
	*first = scene->sealed[0];
	chain->len = 0;
	chain->full = false;
	buf_put(chain, scene->sealed + 1,
	    scene->sealed_len - 1 < chain->cap ? scene->sealed_len - 1
	                                       : chain->cap);
	scene->sealed_len = 0;
}

static void
begin(struct scene *scene, unsigned version, enum fuzz_stage stage)
{
	enum policy_keyexchange both = version == 1 ? KEYEX_IKEV1 : KEYEX_IKEV2;

	memset(scene, 0, sizeof(*scene));
	scene->version = version;
	scene->play = play_new(1);
	play_pair(scene->play, &scene->gate, &scene->peer, both);
	scene->peer->env.impair = impair;
	scene->peer->env.impair_arg = scene;
	if (stage == FUZZ_ANSWERED)
		gateway_up(scene->gate, "net", 0);
	else if (stage != FUZZ_STRANGER)
		gateway_up(scene->peer, "net", 0);
	if (stage == FUZZ_ESTABLISHED)
		play_run(scene->play, 1000);
	else if (stage != FUZZ_STRANGER)
		play_run(scene->play, version == 1 ? 70 : 30);
}

static void
datagram(struct scene *scene, struct view octets, bool named)
{
	const struct ike_sa *sa = scene->gate->env.sadb->last;
	struct endpoint src = { .port = 500 }, dst = { .port = 500 };
	uint8_t copy[4096];
	struct buf buf;

	if (octets.len > sizeof(copy))
		return;
	src.addr = scene->peer->addr;
	dst.addr = scene->gate->addr;
	buf_init(&buf, copy, sizeof(copy));
	buf_view(&buf, octets);
	if (named && sa != NULL && buf.len >= 28) {
		buf_init(&buf, copy, 16);
		buf_u64(&buf, sa->spi_i);
		buf_u64(&buf, sa->spi_r);
		buf.cap = buf.len = octets.len;
		buf_patch_u32(&buf, 24, (uint32_t)octets.len);
	}
	play_inject(scene->play, &src, &dst, false, view_of(copy, octets.len));
	play_run(scene->play, 20);
}

static void
act(struct scene *scene, uint8_t what)
{
	struct ike_sa *sa = gateway_ike(scene->peer);
	struct child_sa *child = gateway_child(scene->peer);

	if (sa == NULL) {
		gateway_up(scene->peer, "net", 0);
		return;
	}
	switch (what % 6) {
	case 0:
		sa->engine->probe(sa);
		break;
	case 1:
		if (child != NULL)
			sa->engine->child_rekey(child);
		break;
	case 2:
		sa->engine->rekey(sa);
		break;
	case 3:
		if (child != NULL)
			sa->engine->child_close(child);
		break;
	case 4:
		gateway_up(scene->peer, "net", 0);
		break;
	default:
		sa->engine->close(sa);
		break;
	}
}

/* Old inbound SAs live on for some seconds after their children. */
static void
end(struct scene *scene)
{
	struct gateway *both[] = { scene->gate, scene->peer };

	for (size_t i = 0; i < 2; i++) {
		gateway_silence(both[i], true);
		while (both[i]->env.sadb->first != NULL)
			sa_kill(both[i]->env.sadb->first, ERR_CANCELLED, false,
			    "the end");
	}
	play_run(scene->play, 15000);
	play_free(scene->play);
}

void
fuzz_engine(unsigned version, const uint8_t *octets, size_t len)
{
	struct view rest = view_of(octets, len), body;
	struct scene scene;
	uint8_t stage, what;
	uint16_t size;
	unsigned steps;

	if (!view_u8(&rest, &stage))
		return;
	begin(&scene, version, (enum fuzz_stage)(stage % FUZZ_STAGES));
	for (steps = 0; steps < STEPS; steps++) {
		if (!view_u8(&rest, &what) || !view_u16(&rest, &size))
			break;
		if (!view_take(&rest, size < rest.len ? size : rest.len, &body))
			break;
		switch (what % FUZZ_STEPS) {
		case FUZZ_DATAGRAM:
			datagram(&scene, body, false);
			break;
		case FUZZ_NAMED:
			datagram(&scene, body, true);
			break;
		case FUZZ_SEALED:
			scene.sealed = body.at;
			scene.sealed_len = body.len;
			break;
		case FUZZ_ACT:
			act(&scene, body.len > 0 ? body.at[0] : 0);
			play_run(scene.play, 60);
			break;
		default:
			play_run(scene.play,
			    100 * (uint64_t)(body.len > 0 ? body.at[0] : 1));
			break;
		}
	}
	/* Whatever came, there is an end to what strangers may hold. */
	HOLDS(limit_half_open(scene.gate->env.limit) <= STEPS + 2);
	end(&scene);
}
