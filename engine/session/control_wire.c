/* SPDX-License-Identifier: Apache-2.0 */
/* Handshake datagrams to bytes and back. What a stranger sent is either taken whole or refused
 * whole; nothing below this file sees a length that was not checked. */
#include "control_wire.h"

#include <openssl/evp.h>

#include <errno.h>

static const char control_label[] = "casemate control v1";

void control_check(const uint8_t *datagram, size_t length, uint8_t check[CONTROL_CHECK_BYTES])
{
	static const uint8_t blank[CONTROL_CHECK_BYTES];
	const size_t at = offsetof(struct control_header, check);
	uint8_t digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *sha = EVP_MD_CTX_new();

	must(length >= CONTROL_HEADER_BYTES, "the check lies inside the header");
	must(sha && EVP_DigestInit_ex(sha, EVP_sha256(), NULL) &&
		     EVP_DigestUpdate(sha, control_label, sizeof control_label - 1) &&
		     EVP_DigestUpdate(sha, datagram, at) &&
		     EVP_DigestUpdate(sha, blank, sizeof blank) &&
		     EVP_DigestUpdate(sha, datagram + at + sizeof blank,
				      length - at - sizeof blank) &&
		     EVP_DigestFinal_ex(sha, digest, NULL),
	     "SHA-256 needs nothing but memory");
	EVP_MD_CTX_free(sha);
	memcpy(check, digest, CONTROL_CHECK_BYTES);
}

/* ---- to bytes ---- */

static size_t stream_encode(const struct control_message *message, uint8_t *body)
{
	struct control_stream_body head = {.offset = message->offset, .length = message->length};

	must(message->length > 0 && message->length <= CONTROL_STREAM_BYTES_MAX,
	     "a chunk fits one datagram");
	memcpy(body, &head, sizeof head);
	memcpy(body + sizeof head, message->bytes, message->length);
	return sizeof head + message->length;
}

static size_t ack_encode(const struct control_message *message, uint8_t *body)
{
	struct control_ack_body head = {.cumulative = message->cumulative,
					.range_count = message->range_count};

	must(message->range_count <= CONTROL_ACK_RANGES_MAX, "ranges fit the datagram");
	memcpy(body, &head, sizeof head);
	for (unsigned i = 0; i < message->range_count; i++) {
		struct control_ack_range range = {.first = (uint32_t)message->range[i].first,
						  .end = (uint32_t)message->range[i].end};

		memcpy(body + sizeof head + i * sizeof range, &range, sizeof range);
	}
	return sizeof head + message->range_count * sizeof(struct control_ack_range);
}

static size_t body_encode(const struct control_message *message, uint8_t *body)
{
	struct control_close_body close = {.reason = message->reason};

	switch (message->type) {
	case CONTROL_HELLO:
		memcpy(body, message->cookie, CONTROL_COOKIE_BYTES);
		return CONTROL_DATAGRAM_BYTES_MAX - CONTROL_HEADER_BYTES;
	case CONTROL_COOKIE:
		memcpy(body, message->cookie, CONTROL_COOKIE_BYTES);
		return CONTROL_COOKIE_BYTES;
	case CONTROL_STREAM:
		return stream_encode(message, body);
	case CONTROL_ACK:
		return ack_encode(message, body);
	case CONTROL_CLOSE:
		memcpy(body, &close, sizeof close);
		return sizeof close;
	}
	must(false, "we send only the types that we know");
	return 0;
}

size_t control_encode(const struct control_message *message,
		      uint8_t out[CONTROL_DATAGRAM_BYTES_MAX])
{
	struct control_header header = {.version = CONTROL_VERSION,
					.type = message->type,
					.receiver = message->receiver,
					.sender = message->sender};
	size_t length;

	memset(out, 0, CONTROL_DATAGRAM_BYTES_MAX);
	length = CONTROL_HEADER_BYTES + body_encode(message, out + CONTROL_HEADER_BYTES);
	must(length <= CONTROL_DATAGRAM_BYTES_MAX, "no handshake datagram is longer");
	memcpy(out, &header, sizeof header);
	control_check(out, length, header.check);
	memcpy(out, &header, sizeof header);
	return length;
}

/* ---- from bytes ---- */

static int hello_decode(const uint8_t *body, size_t length, struct control_message *message)
{
	/* A HELLO is padded to the full length: no answer to it is longer, so nobody can have
	 * others flooded by us. */
	if (length != CONTROL_DATAGRAM_BYTES_MAX - CONTROL_HEADER_BYTES)
		return -EBADMSG;
	if (message->receiver != 0 || message->sender == 0)
		return -EBADMSG;
	for (size_t i = CONTROL_COOKIE_BYTES; i < length; i++)
		if (body[i])
			return -EBADMSG;
	memcpy(message->cookie, body, CONTROL_COOKIE_BYTES);
	return 0;
}

static int cookie_decode(const uint8_t *body, size_t length, struct control_message *message)
{
	if (length != CONTROL_COOKIE_BYTES || message->receiver == 0 || message->sender != 0)
		return -EBADMSG;
	memcpy(message->cookie, body, CONTROL_COOKIE_BYTES);
	return 0;
}

static int stream_decode(const uint8_t *body, size_t length, struct control_message *message)
{
	struct control_stream_body head;

	if (length < sizeof head)
		return -EBADMSG;
	memcpy(&head, body, sizeof head);
	if (head.zero || head.length == 0 || length != sizeof head + head.length)
		return -EBADMSG;
	message->offset = head.offset;
	message->length = head.length;
	message->bytes = body + sizeof head;
	return 0;
}

static int ack_decode(const uint8_t *body, size_t length, struct control_message *message)
{
	struct control_ack_body head;
	uint64_t above;

	if (length < sizeof head)
		return -EBADMSG;
	memcpy(&head, body, sizeof head);
	if (head.zero || head.range_count > CONTROL_ACK_RANGES_MAX ||
	    length != sizeof head + head.range_count * sizeof(struct control_ack_range))
		return -EBADMSG;
	above = head.cumulative;
	for (unsigned i = 0; i < head.range_count; i++) {
		struct control_ack_range range;

		memcpy(&range, body + sizeof head + i * sizeof range, sizeof range);
		if (range.first <= above || range.end <= range.first)
			return -EBADMSG;
		message->range[i] = (struct range){.first = range.first, .end = range.end};
		above = range.end;
	}
	message->cumulative = head.cumulative;
	message->range_count = head.range_count;
	return 0;
}

static int close_decode(const uint8_t *body, size_t length, struct control_message *message)
{
	struct control_close_body close;

	if (length != sizeof close)
		return -EBADMSG;
	memcpy(&close, body, sizeof close);
	if (close.zero || close.reason == SESSION_REASON_NONE)
		return -EBADMSG;
	message->reason = close.reason;
	return 0;
}

int control_decode(const uint8_t *datagram, size_t length, struct control_message *message)
{
	struct control_header header;
	uint8_t check[CONTROL_CHECK_BYTES];
	const uint8_t *body = datagram + CONTROL_HEADER_BYTES;
	size_t body_length = length - CONTROL_HEADER_BYTES;

	if (length < CONTROL_HEADER_BYTES || length > CONTROL_DATAGRAM_BYTES_MAX)
		return -EBADMSG;
	memcpy(&header, datagram, sizeof header);
	if (header.version != CONTROL_VERSION)
		return -EPROTONOSUPPORT;
	control_check(datagram, length, check);
	if (header.zero || memcmp(check, header.check, sizeof check) != 0)
		return -EBADMSG;

	memset(message, 0, sizeof *message);
	message->type = header.type;
	message->receiver = header.receiver;
	message->sender = header.sender;
	if (header.type == CONTROL_HELLO)
		return hello_decode(body, body_length, message);
	if (header.type == CONTROL_COOKIE)
		return cookie_decode(body, body_length, message);
	if (header.receiver == 0 || header.sender == 0)
		return -EBADMSG;
	if (header.type == CONTROL_STREAM)
		return stream_decode(body, body_length, message);
	if (header.type == CONTROL_ACK)
		return ack_decode(body, body_length, message);
	if (header.type == CONTROL_CLOSE)
		return close_decode(body, body_length, message);
	return -EBADMSG;
}
