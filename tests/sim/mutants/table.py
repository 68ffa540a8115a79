# SPDX-License-Identifier: Apache-2.0
"""The deliberately broken builds. Each is a bug that somebody could write in the real code path:
a name, what goes wrong, and edits of engine/core as (file, exact old text, new text). An edit whose
old text is not there exactly once fails the run: the table has to follow the code.
"""

MUTANTS = [
    # ---- skipped syncs ----
    ("skipped sync: journal batches", [("journal.c",
        "\tbatch->io.kind = IO_WRITE_DURABLE;",
        "\tbatch->io.kind = IO_WRITE;")]),
    ("skipped sync: superblocks", [("superblock.c",
        "\t\t.kind = IO_WRITE_DURABLE,",
        "\t\t.kind = IO_WRITE,")]),
    ("skipped sync: intents", [("intent.c",
        "\t\t.kind = IO_WRITE_DURABLE,",
        "\t\t.kind = IO_WRITE,")]),
    ("skipped sync: local writes", [("primary_write.c",
        "\tio->kind = primary->config->sync_flush ? IO_WRITE : IO_WRITE_DURABLE;",
        "\tio->kind = IO_WRITE;")]),
    ("skipped sync: zeros on the device", [("primary_write.c",
        "\t\toperation->needs_sync = !primary->config->sync_flush;",
        "\t\toperation->needs_sync = false;")]),
    ("skipped sync: folded shards", [("image.c",
        "\tcommit_sync(s, s->config.files.image, images, fx);",
        "\tcommit_sync(s, s->config.files.image, images & images - 1, fx);")]),
    ("skipped sync: slot headers", [("image.c",
        "\t\tcommit_sync(s, s->config.files.slots, image->commit.slots, fx);",
        "\t\tcommit_sync(s, s->config.files.slots, 0, fx);")]),
    ("floor counted before the re-sync", [("journal_recover.c",
        "\tsync->io = (struct io){.kind = IO_SYNC, .file = file, .done = synced};",
        "\tsync->io = (struct io){.kind = IO_READ, .file = file, .done = synced};")]),
    # ---- quorums and floors ----
    ("quorum off by one", [("points.c",
        "\treturn points_rank(floor, in_service, quorum.w);",
        "\treturn points_rank(floor, in_service, quorum.w - 1u ? quorum.w - 1u : 1);")]),
    ("promotion from stale stores", [("points.c",
        "\tpromotion.proven = promotion.enough_stores && promotion.acknowledged <= consistent;",
        "\tpromotion.proven = promotion.enough_stores;")]),
    ("fold at the k-th floor", [("points.c",
        "\tunsigned rank = (unsigned)max_u64(quorum.w, quorum.geometry.k + 1u);",
        "\tunsigned rank = quorum.geometry.k;"),
        ("vault_fold.c",
        "\t\tbound = min_u64(bound, floor[i]);\n",
        ""),
        ("fold.c", "\tif (fold->late) {", "\tif (false) {")]),
    ("a floor jumps over a hole", [("vault_points.c",
        "\t\tlsn_t gap = ranges_first_gap(held, next);",
        "\t\tlsn_t gap = held->count ? max_u64(next, held->range[held->count - 1].end) : next;")]),
    # ---- seals ----
    ("reused nonce", [("primary_remote.c",
        ".span = primary->span.id, .lsn = lsn, .generation",
        ".span = primary->span.id, .lsn = lsn | 1, .generation")]),
    ("one subkey for all spans", [("keys.c",
        "span->bytes, UUID_BYTES", "volume_key, UUID_BYTES")]),
    ("missing associated data: block", [("seal.c",
        "\tput_u64(p + SEAL_BLOCK, context->block);\n", "")]),
    ("missing associated data: volume", [("seal.c",
        "\tmemcpy(p + SEAL_VOLUME, context->volume.bytes, UUID_BYTES);\n", "")]),
    ("missing associated data: generation", [("seal.c",
        "\tput_u32(p + SEAL_GENERATION, identity->generation);\n", "")]),
    ("missing associated data: kind", [("seal.c",
        "\tput_u8(p + SEAL_KIND, context->kind);\n", "")]),
    ("missing associated data: payload of a packet", [("link.c",
        "nonce, tag + TAG_BYTES, cell->payload_bytes,\n",
        "nonce, tag + TAG_BYTES, 0,\n"),
        ("link.c",
        "nonce, payload, payload_bytes, &piece, 1,\n",
        "nonce, payload, 0, &piece, 1,\n")]),
    # ---- order ----
    ("acknowledged out of lsn order", [("primary_remote.c",
        "\tlsn_t until = window_mode_point(primary);\n",
        "\tlsn_t until = window_mode_point(primary);\n"
        "\tif (remote_point(primary) >= primary->local_point)\n"
        "\t\tfor (lsn_t lsn = primary->answered + 1; lsn < primary->lsn_next; lsn++) {\n"
        "\t\t\tstruct sent *ahead = window_slot(primary, lsn);\n"
        "\t\t\tif (!ahead->local_done || !ahead->operation)\n"
        "\t\t\t\tcontinue;\n"
        "\t\t\toperation_answered(primary, ahead->operation, fx);\n"
        "\t\t\tahead->operation = NULL;\n"
        "\t\t}\n")]),
    ("local point jumps over a write", [("primary_remote.c",
        "\t       window_slot(primary, primary->local_point + 1)->local_done)",
        "\t       primary->local_point < lsn)")]),
    ("intent written after the send", [("intent.c",
        "\t\topen = open && intent_bit(intent->open, region);",
        "\t\topen = open && (intent_bit(intent->open, region) ||\n"
        "\t\t\t\tintent_bit(intent->queued, region));")]),
    # ---- history ----
    ("a voided tail revived", [("span.c",
        "\t\tlast = min_u64(last, spans->span[i].parent_last);\n",
        "\t\tlast = min_u64(last, spans->span[i].first - 1);\n")]),
    ("duplicates told by lsn alone", [("vault_receive.c",
        "\t    !uuid_equal(&record->span, &newest->id) || record->lsn < newest->first)",
        "\t    record->lsn < newest->first)"),
        ("vault_receive.c",
        "\t       uuid_equal(&a->span, &b->span) && a->identity.lsn == b->identity.lsn &&\n"
        "\t       uuid_equal(&a->identity.span, &b->identity.span) && ",
        "\t       a->identity.lsn == b->identity.lsn && "),
        # The link's own fence against a former life is taken away, so that this one shows.
        ("link.c", "\tif (anew && session == &link->session[0])\n",
         "\tif (anew && !session->confirmed)\n")]),
    # ---- copies ----
    ("a comparison always agrees", [("catchup.c",
        "\treturn seal_matches(primary->tools->aead,",
        "\treturn tag->kind == RECORD_DATA || seal_matches(primary->tools->aead,")]),
]
