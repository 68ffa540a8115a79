/* SPDX-License-Identifier: Apache-2.0 */
/* What the core wants done, collected over one turn: the second half of the seam. Every room is
 * handed the effects of the turn, which also carry its time. */
#ifndef CASEMATE_CORE_EFFECTS_H
#define CASEMATE_CORE_EFFECTS_H

#include "io.h"

/* Something an operator wants to read: one line in the log. Static text, at most three numbers. */
enum note_level { NOTE_INFO, NOTE_WARNING, NOTE_ERROR };
struct note {
	uint8_t level;
	const char *subject; /* group or volume name, or NULL; outlives the turn */
	const char *text;    /* printf form with up to three %llu, in the order of number[] */
	unsigned long long number[3];
};

enum { NOTES_PER_TURN_MAX = 64 };

struct effects {
	ns_t now;	     /* monotonic, of this turn */
	uint64_t wall_ns;    /* since the epoch: a label, never compared */
	struct io_list disk; /* to submit, in any order */
	struct cell_list packets;
	struct request_list replies;
	struct command *results; /* linked by command.next, in order */
	struct command **results_tail;
	struct note note[NOTES_PER_TURN_MAX];
	unsigned note_count;
	uint64_t notes_lost; /* did not fit; never reset by core */
};

static inline void effects_init(struct effects *fx, ns_t now, uint64_t wall_ns)
{
	fx->now = now;
	fx->wall_ns = wall_ns;
	fx->disk = (struct io_list){0};
	fx->packets = (struct cell_list){0};
	fx->replies = (struct request_list){0};
	fx->results = NULL;
	fx->results_tail = &fx->results;
	fx->note_count = 0;
}

static inline void effects_io(struct effects *fx, struct io *io)
{
	io->since = fx->now;
	io_list_push(&fx->disk, io);
}

static inline void effects_note(struct effects *fx, enum note_level level, const char *subject,
				const char *text, const unsigned long long number[3])
{
	if (fx->note_count == NOTES_PER_TURN_MAX) {
		fx->notes_lost++;
		return;
	}
	struct note *note = &fx->note[fx->note_count++];
	*note = (struct note){.level = (uint8_t)level, .subject = subject, .text = text};
	for (unsigned i = 0; number && i < 3; i++)
		note->number[i] = number[i];
}
#define NOTE_NUMBERS(...) ((const unsigned long long[3]){__VA_ARGS__})

#endif
