/* SPDX-License-Identifier: Apache-2.0 */
/* A handshake whose net is the input: each byte chooses whether a datagram is carried, changed,
 * put off, lost or made up. Checks are mended, so that what lies behind them is reached; whatever
 * comes, nobody crashes, and keys that both ends give are the same. */
#include "session/session.h"

#include <openssl/crypto.h>

#include <stdio.h>
#include <stdlib.h>

enum { WAITING_MAX = 16 };

struct end {
	struct session *session;
	struct session_datagram waiting[WAITING_MAX]; /* said by it, not yet carried */
	unsigned waiting_count;
	struct session_keys keys;
	bool has_keys;
};

static struct end ends[2];
static ns_t now;

static struct session *end_new(const char *dir, const char *site, const char *peer)
{
	struct certificate_fingerprint fingerprint;
	struct session_config config = {
		.site = site, .peer = peer, .pin_count = 1, .path_count = 2};
	char ca[128], certificate[128], key[128], pinned[128], why[SESSION_WHY_BYTES];
	struct session *session;

	snprintf(ca, sizeof ca, "%s/ca.pem", dir);
	snprintf(certificate, sizeof certificate, "%s/%s.pem", dir, site);
	snprintf(key, sizeof key, "file:%s/%s.key", dir, site);
	snprintf(pinned, sizeof pinned, "%s/%s.pem", dir, peer);
	must(certificate_fingerprint(pinned, &fingerprint) == 0, "the certificate was just made");
	must(certificate_pin_parse(fingerprint.text, config.pin[0]) == 0, "and has a pin");
	config.ca_file = ca;
	config.certificate_file = certificate;
	config.key_uri = key;
	config.initiator = strcmp(site, "primary") == 0;
	session = session_new(&config, why, sizeof why);
	must(session, "a good configuration gives a session");
	return session;
}

static void ends_make(void)
{
	char dir[] = "/tmp/casemate-fuzz-XXXXXX", path[128], why[256];
	static const char *const files[] = {"ca.pem",	   "ca.key",	"primary.pem",
					    "primary.key", "vault.pem", "vault.key"};

	must(mkdtemp(dir), "there is room in /tmp");
	must(certificate_make_ca(dir, why, sizeof why) == 0, "a new directory has no CA");
	must(certificate_make_site(dir, "primary", why, sizeof why) == 0, "nor sites");
	must(certificate_make_site(dir, "vault", why, sizeof why) == 0, "nor sites");
	ends[0].session = end_new(dir, "primary", "vault");
	ends[1].session = end_new(dir, "vault", "primary");
	for (unsigned i = 0; i < ARRAY_COUNT(files); i++) {
		snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		remove(path);
	}
	remove(dir);
}

static void end_turn(struct end *end)
{
	struct session_datagram datagram;
	struct session_event event;

	while (session_send(end->session, &datagram, now)) {
		must(datagram.length <= CONTROL_DATAGRAM_BYTES_MAX && datagram.path < 2,
		     "what is sent can be sent");
		if (end->waiting_count < WAITING_MAX)
			end->waiting[end->waiting_count++] = datagram;
	}
	while (session_poll(end->session, &event))
		if (event.kind == SESSION_KEYS) {
			end->keys = event.keys;
			end->has_keys = true;
		}
}

static void hear(unsigned to, const struct session_datagram *datagram)
{
	const struct session_arrival arrival = {
		.bytes = datagram->bytes, .length = datagram->length, .path = datagram->path};

	session_receive(ends[to].session, &arrival, now);
	for (unsigned i = 0; i < 2; i++)
		end_turn(&ends[i]);
}

static struct session_datagram taken(struct end *end, unsigned which)
{
	const struct session_datagram datagram = end->waiting[which % end->waiting_count];

	memmove(&end->waiting[which % end->waiting_count],
		&end->waiting[which % end->waiting_count + 1],
		(end->waiting_count - which % end->waiting_count - 1) * sizeof datagram);
	end->waiting_count--;
	return datagram;
}

static void mend(struct session_datagram *datagram)
{
	if (datagram->length >= CONTROL_HEADER_BYTES)
		control_check(datagram->bytes, datagram->length,
			      datagram->bytes + offsetof(struct control_header, check));
}

/* One act of the net, out of up to six bytes; how many it took. */
static size_t act(const uint8_t *input, size_t size)
{
	const unsigned from = input[0] & 1;
	struct end *end = &ends[from];
	struct session_datagram datagram;

	if (size < 6 || !end->waiting_count) {
		now += (ns_t)input[0] * 10 * NS_PER_MS;
		end_turn(&ends[0]);
		end_turn(&ends[1]);
		return 1;
	}
	datagram = taken(end, input[0] >> 4);
	switch (input[0] >> 1 & 3) {
	case 0: /* carried */
		hear(!from, &datagram);
		return 1;
	case 1: /* lost */
		return 1;
	case 2: /* changed, and carried twice */
		datagram.bytes[get_u16(input + 1) % datagram.length] ^= input[3];
		datagram.bytes[get_u16(input + 4) % datagram.length] ^= input[3];
		mend(&datagram);
		hear(!from, &datagram);
		hear(!from, &datagram);
		return 6;
	default: /* cut or lengthened, to any type, between the same two */
		datagram.length = get_u16(input + 1) % (CONTROL_DATAGRAM_BYTES_MAX + 1);
		if (datagram.length > 1)
			datagram.bytes[1] = input[3];
		if (datagram.length >= CONTROL_HEADER_BYTES)
			memcpy(datagram.bytes + CONTROL_HEADER_BYTES, input + 4,
			       min_u64(datagram.length - CONTROL_HEADER_BYTES, size - 4));
		mend(&datagram);
		hear(!from, &datagram);
		return 6;
	}
}

/* All is over, as far as the next input can see. */
static void rest(void)
{
	for (unsigned i = 0; i < 100; i++) {
		now += NS_PER_S;
		end_turn(&ends[0]);
		end_turn(&ends[1]);
		ends[0].waiting_count = ends[1].waiting_count = 0;
	}
	must(!session_busy(ends[0].session) && !session_busy(ends[1].session),
	     "every handshake ends");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct control_message message;

	if (!ends[0].session)
		ends_make();
	control_decode(bytes, size, &message);
	ends[0].has_keys = ends[1].has_keys = false;
	session_start(ends[0].session, now);
	end_turn(&ends[0]);
	while (size) {
		const size_t took = act(bytes, size);

		bytes += took;
		size -= took;
	}
	if (ends[0].has_keys && ends[1].has_keys && ends[0].keys.id_in == ends[1].keys.id_out)
		must(memcmp(ends[0].keys.secret_in, ends[1].keys.secret_out,
			    SESSION_SECRET_BYTES) == 0,
		     "whatever the net did, both ends hold the same keys");
	rest();
	return 0;
}
