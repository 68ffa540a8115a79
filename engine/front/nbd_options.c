/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake: our greeting, the client's flags, and its options until one of them picks an
 * export. Whatever is wrong with an option is answered, and the next one is read: only a bad magic
 * or a length beyond reason ends the connection. */
#include "nbd_parse.h"

enum {
	/* the longest answer: every export listed, and the acknowledgement */
	ANSWER_BYTES_MAX = NBD_EXPORTS_MAX * (NBD_OPTION_REPLY_BYTES + 4 + NAME_BYTES_MAX) + 20,
	NOT_FOUND = NBD_EXPORTS_MAX,
};
_Static_assert((int)ANSWER_BYTES_MAX <= (int)NBD_OUTPUT_BYTES, "one answer fits the output");
_Static_assert((int)NBD_OPTION_HEADER_BYTES + NBD_OPTION_BYTES_MAX <= (int)NBD_INPUT_BYTES,
	       "one option fits the input");

static const char context_name[] = "base:allocation";

/* The option in hand: its data is read from the front. */
struct option {
	struct nbd_connection *nbd;
	uint32_t code; /* enum nbd_option */
	const uint8_t *data;
	uint32_t length;
};

/* A string inside an option: not closed by 0. */
struct text {
	const uint8_t *bytes;
	uint32_t length;
};

/* ---- output ---- */

static uint8_t *output_take(struct nbd_connection *nbd, uint32_t bytes)
{
	if (nbd->output_begin == nbd->output_end)
		nbd->output_begin = nbd->output_end = 0;
	must(bytes <= NBD_OUTPUT_BYTES - nbd->output_end, "room was checked before the option");
	nbd->output_end += bytes;
	return nbd->output + nbd->output_end - bytes;
}

static bool output_has_room(const struct nbd_connection *nbd)
{
	return nbd->output_begin == nbd->output_end ||
	       NBD_OUTPUT_BYTES - nbd->output_end >= ANSWER_BYTES_MAX;
}

/* The header of a reply; gives the place of its data. */
static uint8_t *reply(struct nbd_connection *nbd, uint32_t option, uint32_t type, uint32_t length)
{
	uint8_t *p = output_take(nbd, NBD_OPTION_REPLY_BYTES + length);

	put_be64(p, NBD_OPTION_REPLY_MAGIC);
	put_be32(p + 8, option);
	put_be32(p + 12, type);
	put_be32(p + 16, length);
	return p + NBD_OPTION_REPLY_BYTES;
}

static void reply_error(struct nbd_connection *nbd, uint32_t option, uint32_t type,
			const char *message)
{
	uint32_t length = (uint32_t)strlen(message);

	/* clients try what a server may lack: that is no mistake */
	if (type != NBD_REPLY_ERROR_UNSUPPORTED)
		nbd->shared->counts.refused++;
	memcpy(reply(nbd, option, type, length), message, length);
}

static void acknowledge(const struct option *option)
{
	reply(option->nbd, option->code, NBD_REPLY_ACK, 0);
}

static void refuse(const struct option *option, uint32_t type, const char *message)
{
	reply_error(option->nbd, option->code, type, message);
}

static void refuse_length(const struct option *option)
{
	refuse(option, NBD_REPLY_ERROR_INVALID, "the lengths in this option do not add up");
}

/* ---- data of an option: false when it ends too early ---- */

static bool take_u16(struct option *option, uint16_t *value)
{
	if (option->length < 2)
		return false;
	*value = get_be16(option->data);
	option->data += 2;
	option->length -= 2;
	return true;
}

static bool take_u32(struct option *option, uint32_t *value)
{
	if (option->length < 4)
		return false;
	*value = get_be32(option->data);
	option->data += 4;
	option->length -= 4;
	return true;
}

static bool take_text(struct option *option, struct text *text)
{
	if (!take_u32(option, &text->length) || text->length > option->length ||
	    text->length > NBD_NAME_BYTES_MAX)
		return false;
	text->bytes = option->data;
	option->data += text->length;
	option->length -= text->length;
	return true;
}

static bool text_is(const struct text *text, const char *string)
{
	return text->length == strlen(string) && memcmp(text->bytes, string, text->length) == 0;
}

/* ---- exports ---- */

/* The name "" means the only one that is ready, or else the first. */
static unsigned export_default(const struct nbd_shared *shared)
{
	unsigned found = 0, ready_count = 0;

	for (unsigned i = 0; i < shared->export_count; i++)
		if (shared->export[i].ready && ready_count++ == 0)
			found = i;
	if (ready_count == 1)
		return found;
	return shared->export_count > 0 ? 0 : NOT_FOUND;
}

static unsigned export_find(const struct nbd_shared *shared, const struct text *name)
{
	if (name->length == 0)
		return export_default(shared);
	for (unsigned i = 0; i < shared->export_count; i++)
		if (text_is(name, shared->export[i].name))
			return i;
	return NOT_FOUND;
}

/* Finds an export that is ready, or answers why there is none. */
static bool export_pick(const struct option *option, const struct text *name, uint16_t *export)
{
	const struct nbd_shared *shared = option->nbd->shared;
	unsigned found = export_find(shared, name);

	if (found == NOT_FOUND) {
		refuse(option, NBD_REPLY_ERROR_UNKNOWN, "there is no export of that name");
		return false;
	}
	if (!shared->export[found].ready) {
		refuse(option, NBD_REPLY_ERROR_UNKNOWN,
		       "the export exists, but is not ready to be served by this site");
		return false;
	}
	*export = (uint16_t)found;
	return true;
}

static uint16_t transmission_flags(const struct nbd_connection *nbd,
				   const struct nbd_export *export)
{
	unsigned flags =
		NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN | NBD_SEND_CACHE;

	if (nbd->structured)
		flags |= NBD_SEND_DF;
	if (export->read_only)
		flags |= NBD_READ_ONLY;
	else
		flags |= NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
	return (uint16_t)flags;
}

/* Contexts were agreed for one export by name; another one has none. */
static void transmission_begin(struct nbd_connection *nbd, uint16_t export)
{
	nbd->export = export;
	nbd->context = nbd->context && nbd->context_export == export;
	nbd_enter(nbd, NBD_PHASE_COMMAND);
}

/* ---- the options ---- */

/* There is no way to refuse this option but to hang up. */
static void option_export_name(struct option *option)
{
	struct nbd_connection *nbd = option->nbd;
	struct text name = {.bytes = option->data, .length = option->length};
	unsigned found = export_find(nbd->shared, &name);
	uint8_t *p;

	if (found == NOT_FOUND || !nbd->shared->export[found].ready || nbd->shutdown) {
		nbd->shared->counts.refused++;
		nbd_enter(nbd, NBD_PHASE_LEAVING);
		return;
	}
	const struct nbd_export *export = &nbd->shared->export[found];
	uint32_t zeroes = nbd->no_zeroes ? 0 : NBD_EXPORT_NAME_ZEROES_BYTES;
	p = output_take(nbd, NBD_EXPORT_NAME_REPLY_BYTES + zeroes);
	put_be64(p, export->size);
	put_be16(p + 8, transmission_flags(nbd, export));
	memset(p + NBD_EXPORT_NAME_REPLY_BYTES, 0, zeroes);
	transmission_begin(nbd, (uint16_t)found);
}

static void option_abort(struct option *option)
{
	acknowledge(option);
	nbd_enter(option->nbd, NBD_PHASE_LEAVING);
}

static void option_list(struct option *option)
{
	const struct nbd_shared *shared = option->nbd->shared;

	if (option->length != 0) {
		refuse(option, NBD_REPLY_ERROR_INVALID, "a list takes no data");
		return;
	}
	for (unsigned i = 0; i < shared->export_count; i++) {
		const struct nbd_export *export = &shared->export[i];
		if (!export->ready)
			continue;
		uint32_t length = (uint32_t)strlen(export->name);
		uint8_t *p = reply(option->nbd, option->code, NBD_REPLY_SERVER, 4 + length);
		put_be32(p, length);
		memcpy(p + 4, export->name, length);
	}
	acknowledge(option);
}

static void option_starttls(struct option *option)
{
	if (option->length != 0)
		refuse(option, NBD_REPLY_ERROR_INVALID, "starting TLS takes no data");
	else
		refuse(option, NBD_REPLY_ERROR_UNSUPPORTED, "this server speaks no TLS");
}

static void option_structured_reply(struct option *option)
{
	if (option->length != 0) {
		refuse(option, NBD_REPLY_ERROR_INVALID, "structured replies take no data");
		return;
	}
	option->nbd->structured = true;
	acknowledge(option);
}

static void describe_export(const struct option *option, const struct nbd_export *export,
			    bool with_name)
{
	uint8_t *p = reply(option->nbd, option->code, NBD_REPLY_INFO, 12);

	put_be16(p, NBD_INFO_EXPORT);
	put_be64(p + 2, export->size);
	put_be16(p + 10, transmission_flags(option->nbd, export));
	if (with_name) {
		uint32_t length = (uint32_t)strlen(export->name);
		p = reply(option->nbd, option->code, NBD_REPLY_INFO, 2 + length);
		put_be16(p, NBD_INFO_NAME);
		memcpy(p + 2, export->name, length);
	}
	p = reply(option->nbd, option->code, NBD_REPLY_INFO, 14);
	put_be16(p, NBD_INFO_BLOCK_SIZE);
	put_be32(p + 2, NBD_BLOCK_BYTES_MIN);
	put_be32(p + 6, NBD_BLOCK_BYTES_PREFERRED);
	put_be32(p + 10, NBD_PAYLOAD_BYTES_MAX);
}

/* INFO and GO: 32-bit length, name, 16-bit count, that many 16-bit kinds of information. */
static void option_info(struct option *option)
{
	struct nbd_connection *nbd = option->nbd;
	struct text name;
	uint16_t count, kind, export;
	bool with_name = false;

	if (!take_text(option, &name) || !take_u16(option, &count) ||
	    option->length != 2u * count) {
		refuse_length(option);
		return;
	}
	while (take_u16(option, &kind))
		with_name |= kind == NBD_INFO_NAME;
	if (!export_pick(option, &name, &export))
		return;
	describe_export(option, &nbd->shared->export[export], with_name);
	acknowledge(option);
	if (option->code == NBD_OPTION_GO)
		transmission_begin(nbd, export);
}

/* "base:" alone asks a list for all of that name space; it chooses nothing. */
static bool query_matches(const struct option *option, const struct text *query)
{
	return text_is(query, context_name) ||
	       (option->code == NBD_OPTION_LIST_META_CONTEXT && text_is(query, "base:"));
}

/* Queries, of which any may match. A list without a query asks for all. False: malformed. */
static bool queries_match(struct option *option, bool *matched)
{
	uint32_t count;
	struct text query;

	if (!take_u32(option, &count))
		return false;
	*matched = count == 0 && option->code == NBD_OPTION_LIST_META_CONTEXT;
	for (uint32_t i = 0; i < count; i++) {
		if (!take_text(option, &query))
			return false;
		*matched |= query_matches(option, &query);
	}
	return option->length == 0;
}

static void option_meta_context(struct option *option)
{
	struct nbd_connection *nbd = option->nbd;
	bool set = option->code == NBD_OPTION_SET_META_CONTEXT;
	struct text name;
	uint16_t export;
	bool matched;

	if (set)
		nbd->context = false; /* whatever comes of this one, the one before is forgotten */
	if (set && !nbd->structured) {
		refuse(option, NBD_REPLY_ERROR_INVALID, "structured replies come first");
		return;
	}
	if (!take_text(option, &name) || !queries_match(option, &matched)) {
		refuse_length(option);
		return;
	}
	if (!export_pick(option, &name, &export))
		return;
	if (matched) {
		uint32_t length = sizeof context_name - 1;
		uint8_t *p = reply(nbd, option->code, NBD_REPLY_META_CONTEXT, 4 + length);
		put_be32(p, set ? NBD_CONTEXT_ID : 0);
		memcpy(p + 4, context_name, length);
	}
	if (set) {
		nbd->context = matched;
		nbd->context_export = export;
	}
	acknowledge(option);
}

static void (*const option_handler[])(struct option *) = {
	[NBD_OPTION_EXPORT_NAME] = option_export_name,
	[NBD_OPTION_ABORT] = option_abort,
	[NBD_OPTION_LIST] = option_list,
	[NBD_OPTION_STARTTLS] = option_starttls,
	[NBD_OPTION_INFO] = option_info,
	[NBD_OPTION_GO] = option_info,
	[NBD_OPTION_STRUCTURED_REPLY] = option_structured_reply,
	[NBD_OPTION_LIST_META_CONTEXT] = option_meta_context,
	[NBD_OPTION_SET_META_CONTEXT] = option_meta_context,
};

static void option_handle(struct option *option)
{
	if (option->nbd->shutdown && option->code > NBD_OPTION_ABORT)
		refuse(option, NBD_REPLY_ERROR_SHUTDOWN, "this server is about to stop");
	else if (option->code < ARRAY_COUNT(option_handler) && option_handler[option->code])
		option_handler[option->code](option);
	else
		refuse(option, NBD_REPLY_ERROR_UNSUPPORTED, "this option is not known here");
}

/* ---- the steps ---- */

void nbd_greet(struct nbd_connection *nbd)
{
	uint8_t *p = output_take(nbd, NBD_GREETING_BYTES);

	put_be64(p, NBD_GREETING_MAGIC);
	put_be64(p + 8, NBD_OPTION_MAGIC);
	put_be16(p + 16, NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
}

/* "The server MUST drop the connection" when it does not know a flag of the client. */
enum nbd_step nbd_step_client_flags(struct nbd_connection *nbd)
{
	if (nbd_input_bytes(nbd) < NBD_CLIENT_FLAGS_BYTES)
		return NBD_STEP_MORE;
	uint32_t flags = get_be32(nbd_input(nbd));
	nbd_input_consume(nbd, NBD_CLIENT_FLAGS_BYTES);
	if (flags & ~(uint32_t)(NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES))
		return nbd_bad_stream(nbd);
	nbd->fixed_newstyle = flags & NBD_HANDSHAKE_FIXED_NEWSTYLE;
	nbd->no_zeroes = flags & NBD_HANDSHAKE_NO_ZEROES;
	nbd_enter(nbd, NBD_PHASE_OPTION);
	return NBD_STEP_ON;
}

/* A client of the first newstyle knows one option and no replies to it. */
static bool option_allowed(const struct nbd_connection *nbd, uint32_t code, uint32_t length)
{
	if (code == NBD_OPTION_EXPORT_NAME)
		return length <= NBD_NAME_BYTES_MAX;
	return nbd->fixed_newstyle && length <= NBD_OPTION_SKIP_BYTES_MAX;
}

enum nbd_step nbd_step_option(struct nbd_connection *nbd)
{
	const uint8_t *p = nbd_input(nbd);

	if (nbd_input_bytes(nbd) < NBD_OPTION_HEADER_BYTES)
		return NBD_STEP_MORE;
	struct option option = {.nbd = nbd,
				.code = get_be32(p + 8),
				.data = p + NBD_OPTION_HEADER_BYTES,
				.length = get_be32(p + 12)};
	if (get_be64(p) != NBD_OPTION_MAGIC || !option_allowed(nbd, option.code, option.length))
		return nbd_bad_stream(nbd);
	if (option.length > NBD_OPTION_BYTES_MAX) {
		nbd_input_consume(nbd, NBD_OPTION_HEADER_BYTES);
		nbd->skipped_option = option.code;
		nbd->skip_bytes = option.length;
		nbd_enter(nbd, NBD_PHASE_OPTION_SKIP);
		return NBD_STEP_ON;
	}
	if (nbd_input_bytes(nbd) < NBD_OPTION_HEADER_BYTES + option.length)
		return NBD_STEP_MORE;
	if (!output_has_room(nbd))
		return nbd_block(nbd, NBD_WANTS_OUTPUT);
	nbd_input_consume(nbd, NBD_OPTION_HEADER_BYTES + option.length);
	option_handle(&option);
	return NBD_STEP_ON;
}

enum nbd_step nbd_step_option_skip(struct nbd_connection *nbd)
{
	uint32_t bytes = (uint32_t)min_u64(nbd_input_bytes(nbd), nbd->skip_bytes);

	nbd_input_consume(nbd, bytes);
	nbd->skip_bytes -= bytes;
	if (nbd->skip_bytes > 0)
		return NBD_STEP_MORE;
	if (!output_has_room(nbd))
		return nbd_block(nbd, NBD_WANTS_OUTPUT);
	reply_error(nbd, nbd->skipped_option, NBD_REPLY_ERROR_TOO_BIG,
		    "no option of that length is known here");
	nbd_enter(nbd, NBD_PHASE_OPTION);
	return NBD_STEP_ON;
}
