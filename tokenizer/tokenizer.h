/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.h - BERT WordPiece: text in, token ids and code-point offsets out.
 *
 * Exactly what Hugging Face's `tokenizers` gives for BertTokenizer / DistilBertTokenizer:
 * clean text, spaces round CJK, lower case, NFD accent strip, split at punctuation, greedy
 * longest-match word pieces, [UNK] for words over 100 characters, [CLS] ... [SEP].
 *
 * Threads:    a struct tokenizer is read-only after tokenizer_open; any number of threads
 *             may encode with it at once.
 * Call order: open (encode | token)* close
 */
#ifndef VIGIL_TOKENIZER_TOKENIZER_H
#define VIGIL_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tokenizer;

/* Code points [begin, end) of the text as given. [CLS] and [SEP] have begin == end. */
struct token_span {
    uint32_t begin, end;
};

struct encoding {
    size_t n_tokens;   /* written, [CLS] and [SEP] included */
    size_t n_unknown;  /* of these, how many are [UNK] */
    bool is_truncated; /* there was more text than cap_tokens could hold */
};

/* Reads `vocab.txt` with `tokenizer_config.json` (do_lower_case, strip_accents,
 * tokenize_chinese_chars), or `tokenizer.json` alone, from a model directory.
 * *out is owned by the caller and freed with tokenizer_close (NULL is a no-op).
 * Errors: one line with the file, what was expected and what was found. */
enum status tokenizer_open(const char *model_dir, struct tokenizer **out,
                           struct error *err);
void tokenizer_close(struct tokenizer *t);

/* Encodes one UTF-8 text into ids[0 .. n_tokens), [CLS] first and [SEP] last.
 * text       [text_bytes], need not be NUL-terminated, may hold NULs (cleaned away);
 *            invalid UTF-8 reads as U+FFFD (which is cleaned away too)
 * ids        [cap_tokens] out; cap_tokens >= 2. A longer text is cut to cap_tokens as
 *            `truncation=True` does; work stops there
 * spans      [cap_tokens] out, or NULL
 * No allocation, linear time, any thread. tokenizer_max_tokens(text_bytes) is always room
 * enough. */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t text_bytes,
                      int32_t *ids, struct token_span *spans, size_t cap_tokens,
                      struct encoding *out);

/* The most tokens that text_bytes bytes of text can give, specials included. */
size_t tokenizer_max_tokens(size_t text_bytes);

/* The vocabulary entry of an id, NUL-terminated, owned by t; NULL when out of range. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id);
int32_t tokenizer_vocab_size(const struct tokenizer *t);
int32_t tokenizer_cls_id(const struct tokenizer *t);
int32_t tokenizer_sep_id(const struct tokenizer *t);
int32_t tokenizer_unk_id(const struct tokenizer *t);

#endif
