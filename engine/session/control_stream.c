/* SPDX-License-Identifier: Apache-2.0 */
/* One timer serves the whole stream: it runs while a chunk is in flight, doubles when it fires
 * (every chunk not acknowledged is then due again), and falls back to its least value when the peer
 * acknowledges something new. A handshake is a few kilobytes; nothing finer is worth its code. */
#include "control_stream.h"

#include <openssl/crypto.h>

#include <errno.h>

static const ns_t rto_min = CONTROL_STREAM_RTO_MIN_MS * NS_PER_MS;
static const ns_t rto_max = CONTROL_STREAM_RTO_MAX_MS * NS_PER_MS;

void control_stream_init(struct control_stream *stream)
{
	memset(stream, 0, sizeof *stream);
	stream->rto = rto_min;
	stream->resend_at = NS_NEVER;
	ranges_init(&stream->held, stream->held_memory, CONTROL_ACK_RANGES_MAX);
}

void control_stream_fini(struct control_stream *stream)
{
	OPENSSL_cleanse(stream, sizeof *stream);
}

/* ---- out ---- */

int control_stream_write(struct control_stream *stream, const uint8_t *bytes, size_t length)
{
	const size_t chunks = div_up(length, CONTROL_STREAM_BYTES_MAX);

	if (length > CONTROL_STREAM_CAP - stream->out_end ||
	    chunks > CONTROL_STREAM_CHUNKS_MAX - stream->chunk_count)
		return -ENOSPC;
	memcpy(stream->out + stream->out_end, bytes, length);
	while (length) {
		const size_t part = min_u64(length, CONTROL_STREAM_BYTES_MAX);

		stream->chunk[stream->chunk_count++] = (struct control_chunk){
			.offset = stream->out_end, .length = (uint16_t)part, .due = true};
		stream->out_end += (uint32_t)part;
		length -= part;
	}
	must(stream->out_end <= CONTROL_STREAM_CAP, "what was written lies in the buffer");
	return 0;
}

bool control_stream_send(struct control_stream *stream, struct control_message *message, ns_t now)
{
	for (unsigned i = 0; i < stream->chunk_count; i++) {
		struct control_chunk *chunk = &stream->chunk[i];

		if (!chunk->due)
			continue;
		must(!chunk->acked, "what has arrived is not sent again");
		chunk->due = false;
		stream->resend_at = now + stream->rto;
		message->type = CONTROL_STREAM;
		message->offset = chunk->offset;
		message->length = chunk->length;
		message->bytes = stream->out + chunk->offset;
		return true;
	}
	return false;
}

bool control_stream_tick(struct control_stream *stream, ns_t now)
{
	if (now < stream->resend_at)
		return false;
	must(!control_stream_flushed(stream), "the timer runs only while something is in flight");
	for (unsigned i = 0; i < stream->chunk_count; i++)
		stream->chunk[i].due = !stream->chunk[i].acked;
	stream->rto = min_u64(stream->rto * 2, rto_max);
	stream->resend_at = now + stream->rto;
	return true;
}

bool control_stream_flushed(const struct control_stream *stream)
{
	for (unsigned i = 0; i < stream->chunk_count; i++)
		if (!stream->chunk[i].acked)
			return false;
	return true;
}

void control_stream_flush(struct control_stream *stream)
{
	for (unsigned i = 0; i < stream->chunk_count; i++) {
		stream->chunk[i].acked = true;
		stream->chunk[i].due = false;
	}
	stream->resend_at = NS_NEVER;
}

ns_t control_stream_deadline(const struct control_stream *stream)
{
	if (stream->ack_due)
		return 0;
	for (unsigned i = 0; i < stream->chunk_count; i++)
		if (stream->chunk[i].due)
			return 0;
	return stream->resend_at;
}

static bool chunk_covered(const struct control_chunk *chunk, const struct control_message *ack)
{
	const uint64_t end = (uint64_t)chunk->offset + chunk->length;

	if (end <= ack->cumulative)
		return true;
	for (unsigned i = 0; i < ack->range_count; i++)
		if (ack->range[i].first <= chunk->offset && end <= ack->range[i].end)
			return true;
	return false;
}

int control_stream_acked(struct control_stream *stream, const struct control_message *ack, ns_t now)
{
	bool news = false;

	if (ack->cumulative > stream->out_end ||
	    (ack->range_count && ack->range[ack->range_count - 1].end > stream->out_end))
		return -EBADMSG;
	for (unsigned i = 0; i < stream->chunk_count; i++) {
		struct control_chunk *chunk = &stream->chunk[i];

		if (chunk->acked || !chunk_covered(chunk, ack))
			continue;
		chunk->acked = true;
		chunk->due = false;
		news = true;
	}
	if (control_stream_flushed(stream)) {
		stream->resend_at = NS_NEVER;
	} else if (news) {
		stream->rto = rto_min;
		stream->resend_at = now + stream->rto;
	}
	return news;
}

/* ---- in ---- */

int control_stream_receive(struct control_stream *stream, const struct control_message *message)
{
	const uint64_t first = message->offset;
	const uint64_t end = first + message->length;
	int error;

	if (end > CONTROL_STREAM_CAP)
		return -EMSGSIZE;
	stream->ack_due = true;
	if (ranges_contains_all(&stream->held, first, end))
		return 0;
	error = ranges_add(&stream->held, first, end);
	if (error)
		return error;
	/* What the reader has taken is never changed by a late, different copy. */
	for (uint64_t i = max_u64(first, stream->in_read); i < end; i++)
		stream->in[i] = message->bytes[i - first];
	return 0;
}

size_t control_stream_read(struct control_stream *stream, const uint8_t **bytes)
{
	const uint64_t end = ranges_first_gap(&stream->held, 0);
	const size_t length = end - stream->in_read;

	must(end >= stream->in_read && end <= CONTROL_STREAM_CAP,
	     "what was read is held, and what is held is in the buffer");
	*bytes = stream->in + stream->in_read;
	stream->in_read = (uint32_t)end;
	return length;
}

void control_stream_ack(struct control_stream *stream, struct control_message *message)
{
	uint64_t from = ranges_first_gap(&stream->held, 0);
	const struct range *range;

	stream->ack_due = false;
	message->type = CONTROL_ACK;
	message->cumulative = (uint32_t)from;
	message->range_count = 0;
	while ((range = ranges_next(&stream->held, from))) {
		must(message->range_count < CONTROL_ACK_RANGES_MAX, "we hold no more ranges");
		message->range[message->range_count++] = *range;
		from = range->end;
	}
}
