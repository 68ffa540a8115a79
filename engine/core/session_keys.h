/* SPDX-License-Identifier: Apache-2.0 */
/* What a finished handshake hands to the core: the only thing that the two know of each other. */
#ifndef CASEMATE_CORE_SESSION_KEYS_H
#define CASEMATE_CORE_SESSION_KEYS_H

#include "keys.h"

struct session_keys {
	uint64_t id_in;	 /* session id in the datagrams that we receive; random, ours */
	uint64_t id_out; /* and in those that we send; the peer's */
	uint8_t secret_in[SESSION_SECRET_BYTES];
	uint8_t secret_out[SESSION_SECRET_BYTES];
	bool initiator; /* we were the TLS client: our keys count only after the peer's first
			   authenticated datagram */
};

#endif
