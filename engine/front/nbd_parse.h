/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the connection share among themselves: a step of parsing per phase, and the
 * few verbs that change a connection. */
#ifndef CASEMATE_FRONT_NBD_PARSE_H
#define CASEMATE_FRONT_NBD_PARSE_H

#include "nbd.h"

enum nbd_step {
	NBD_STEP_ON,	  /* something was consumed: go on */
	NBD_STEP_MORE,	  /* more bytes are needed */
	NBD_STEP_BLOCKED, /* a slot, memory or output room is needed */
	NBD_STEP_END,	  /* nothing more will be read */
};

/* nbd.c */
void nbd_enter(struct nbd_connection *, enum nbd_phase);
enum nbd_step nbd_block(struct nbd_connection *, enum nbd_blocked);
/* The stream makes no sense: no more is read. */
enum nbd_step nbd_bad_stream(struct nbd_connection *);
struct nbd_slot *nbd_slot_take(struct nbd_connection *);
void nbd_slot_give(struct nbd_slot *);
void nbd_slot_queue_reply(struct nbd_slot *);

static inline const uint8_t *nbd_input(const struct nbd_connection *nbd)
{
	return nbd->input + nbd->input_begin;
}
static inline uint32_t nbd_input_bytes(const struct nbd_connection *nbd)
{
	return nbd->input_end - nbd->input_begin;
}
static inline void nbd_input_consume(struct nbd_connection *nbd, uint32_t bytes)
{
	must(bytes <= nbd_input_bytes(nbd), "only what arrived is consumed");
	nbd->input_begin += bytes;
}

/* nbd_options.c */
void nbd_greet(struct nbd_connection *);
enum nbd_step nbd_step_client_flags(struct nbd_connection *);
enum nbd_step nbd_step_option(struct nbd_connection *);
enum nbd_step nbd_step_option_skip(struct nbd_connection *);

/* nbd_commands.c */
enum nbd_step nbd_step_command(struct nbd_connection *);
enum nbd_step nbd_step_payload(struct nbd_connection *);
enum nbd_step nbd_step_payload_skip(struct nbd_connection *);
/* Puts head and body of the reply into the slot. */
void nbd_reply_build(struct nbd_slot *, int32_t result);

#endif
