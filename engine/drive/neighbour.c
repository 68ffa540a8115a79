/* SPDX-License-Identifier: Apache-2.0 */
/* Link addresses of next hops: a request each second until answered, another each minute after. */
#include "neighbour.h"

void neighbour_init(struct neighbour *neighbour, uint32_t ip)
{
	*neighbour = (struct neighbour){.ip = ip};
}

bool neighbour_asks(struct neighbour *neighbour, ns_t now)
{
	if (now < neighbour->ask_at)
		return false;
	neighbour->asked = true;
	neighbour->asked_at = now;
	neighbour->ask_at = now + NEIGHBOUR_ASK_EVERY_NS;
	return true;
}

bool neighbour_learn(struct neighbour *neighbour, uint32_t ip, const struct mac *mac, ns_t now)
{
	if (ip != neighbour->ip)
		return false;
	if (mac->bytes[0] & 1)
		return false; /* a group is nobody */
	bool news = !neighbour->known || !mac_equal(mac, &neighbour->mac);
	if (news && neighbour->known && !neighbour->asked) {
		neighbour->ask_at =
			min_u64(neighbour->ask_at, neighbour->asked_at + NEIGHBOUR_ASK_EVERY_NS);
		return false;
	}
	neighbour->known = true;
	neighbour->asked = false;
	neighbour->mac = *mac;
	neighbour->ask_at = now + NEIGHBOUR_REFRESH_AFTER_NS;
	return news;
}

void neighbour_link_up(struct neighbour *neighbour, ns_t now)
{
	neighbour->ask_at = now;
}
