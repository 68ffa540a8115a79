/* SPDX-License-Identifier: Apache-2.0 */
/* Whose link address the next hop of a path has. One per port, because a path has one peer: asked
 * for by ARP (RFC 826). Who tells another address unasked is not believed: the question is asked
 * again, and its first answer counts. So a single forged frame turns nothing aside. */
#ifndef CASEMATE_DRIVE_NEIGHBOUR_H
#define CASEMATE_DRIVE_NEIGHBOUR_H

#include "core/frame.h"

#define NEIGHBOUR_ASK_EVERY_NS	   NS_PER_S
#define NEIGHBOUR_REFRESH_AFTER_NS (60 * NS_PER_S)

struct neighbour {
	uint32_t ip; /* of the peer, or of the gateway towards it */
	struct mac mac;
	bool known;
	bool asked;    /* and not answered yet */
	ns_t asked_at; /* last */
	ns_t ask_at;   /* when the next request is due */
};

void neighbour_init(struct neighbour *, uint32_t ip);
/* Whether a request is to be sent now; it then counts as sent. An address that is not confirmed
 * stays in use: a wrong one is no worse than none. */
bool neighbour_asks(struct neighbour *, ns_t now);
/* Somebody said that ip is at mac. Whether that is news to us, and believed. */
bool neighbour_learn(struct neighbour *, uint32_t ip, const struct mac *, ns_t now);
/* The link came up: ask at once. */
void neighbour_link_up(struct neighbour *, ns_t now);

#endif
