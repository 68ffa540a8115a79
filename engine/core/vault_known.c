/* SPDX-License-Identifier: Apache-2.0 */
/* What the stores of a group know of it when the vault starts: whose superblock holds for all, and
 * which disk is in service in each place (docs/semantics.md "stores"). */
#include "vault.h"

/* Of two superblocks of one set, the one that knows more. What a start of the vault recorded on w
 * stores is known to each later one, whose number is higher; what an earlier one recorded on fewer
 * loses to it, though its generation or its span may be the higher. Within one start spans are one
 * chain. */
static bool meta_newer(const struct store_group *a, const struct store_group *b)
{
	if (a->assembly != b->assembly)
		return a->assembly > b->assembly;
	if (a->generation != b->generation)
		return a->generation > b->generation;
	int spans = spans_compare(&a->spans, &b->spans);
	if (spans)
		return spans > 0;
	return a->fold_point > b->fold_point;
}

/* What a store that was read says; NULL of others. */
static const struct store_group *meta_of(const struct vault *vault, unsigned index)
{
	const struct store *store = vault->store[index].store;
	if (!store || store_state_of(store) != STORE_READY)
		return NULL;
	return store_group_of(store);
}

/* Another store, of no earlier start, knows that this one was made anew: what is here is the old
 * disk. */
static bool store_replaced(const struct vault *vault, unsigned index)
{
	const struct store_group *own = meta_of(vault, index);
	for (unsigned i = 0; i < vault->n; i++) {
		const struct store_group *other = i == index ? NULL : meta_of(vault, i);
		if (other && uuid_equal(&other->set, &own->set) &&
		    other->assembly >= own->assembly &&
		    other->incarnation[index] > store_incarnation(vault->store[index].store))
			return true;
	}
	return false;
}

const struct store_group *vault_meta_best(const struct vault *vault)
{
	const struct store_group *best = NULL;
	for (unsigned replaced = 0; replaced < 2 && !best; replaced++)
		for (unsigned i = 0; i < vault->n; i++) {
			const struct store_group *meta = meta_of(vault, i);
			if (!meta || store_replaced(vault, i) != replaced)
				continue;
			if (!best || meta_newer(meta, best))
				best = meta;
		}
	return best;
}

uint64_t vault_assembly_next(const struct vault *vault)
{
	uint64_t last = vault->meta.assembly;
	for (unsigned i = 0; i < vault->n; i++) {
		const struct store_group *meta = meta_of(vault, i);
		if (meta && uuid_equal(&meta->set, &vault->meta.set))
			last = max_u64(last, meta->assembly);
	}
	return last + 1;
}

static bool history_equal(const struct store_group *a, const struct store_group *b)
{
	const struct span *left = spans_newest(&a->spans), *right = spans_newest(&b->spans);
	return a->assembly == b->assembly && a->generation == b->generation &&
	       spans_compare(&a->spans, &b->spans) == 0 &&
	       (!left || uuid_equal(&left->id, &right->id));
}

lsn_t vault_promised_known(const struct vault *vault)
{
	lsn_t promised = vault->meta.promised;
	for (unsigned i = 0; i < vault->n; i++) {
		const struct store_group *meta = meta_of(vault, i);
		if (meta && vault->store[i].in_service && history_equal(meta, &vault->meta))
			promised = max_u64(promised, meta->promised);
	}
	return promised;
}

/* docs/semantics.md "stores": what a store says of itself does not count while others can be asked.
 * An old disk does not know that it was replaced, nor a new one that it was given up. Only those
 * are asked that know the newest span: one that was just made knows of no other. A bit in out falls
 * only with a new incarnation. */
void vault_incarnations_settle(struct vault *vault)
{
	bool empty = !spans_newest(&vault->meta.spans);
	for (unsigned i = 0; i < vault->n; i++) {
		uint32_t incarnation = 0, out = 0;
		for (unsigned j = 0; j < vault->n; j++) {
			const struct store_group *meta =
				i == j && !empty ? NULL : meta_of(vault, j);
			if (!meta || !uuid_equal(&meta->set, &vault->meta.set) ||
			    !history_equal(meta, &vault->meta) || store_replaced(vault, j) ||
			    meta->incarnation[i] < incarnation)
				continue;
			out = meta->incarnation[i] > incarnation ? 0 : out;
			out |= meta->out & 1u << i;
			incarnation = meta->incarnation[i];
		}
		if (!incarnation)
			continue;
		vault->meta.incarnation[i] = incarnation;
		vault->meta.out = (vault->meta.out & ~(1u << i)) | out;
	}
}
