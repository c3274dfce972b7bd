/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/fold.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "client/select/normalise.h"

#define N_REMEMBERED ((size_t)262144)
#define MAX_REMEMBERED ((size_t)1 << 28)
#define WINDOW_NS (INT64_C(7) * 24 * 3600 * 1000000000)
#define KEY_BYTES_A_POST 96
#define N_BANDS 4
#define N_BUCKETS 65536
#define EXACT (UINT64_C(1) << 63)
#define SHINGLE 3

/* ---- Fingerprints ---- */

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    x = (x ^ x >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    return x ^ x >> 32;
}

/* Counts, for 64 bits at once, how many values had each set: bit b of plane p is bit p of
 * the count of bit b. */
#define N_PLANES 20 /* more values than the longest text has words */
struct counts {
    uint64_t planes[N_PLANES];
    uint32_t n;
};

static void count(struct counts *c, uint64_t value) {
    c->n++;
    for (unsigned p = 0; value && p < N_PLANES; p++) {
        uint64_t carry = c->planes[p] & value;
        c->planes[p] ^= value;
        value = carry;
    }
}

/* The bits that more than half of the values had. */
static uint64_t majority(const struct counts *c) {
    uint32_t half = c->n / 2;
    uint64_t more = 0, equal = UINT64_MAX;
    for (unsigned p = N_PLANES; p-- > 0;) {
        uint64_t bit = half >> p & 1 ? UINT64_MAX : 0;
        more |= equal & c->planes[p] & ~bit;
        equal &= ~(c->planes[p] ^ bit);
    }
    return more;
}

/* A word that tells nothing of what a text says: of a link, of a repost. */
enum noise { NO_NOISE, NOISE, LINK };

static enum noise noise_of(const char *start, size_t n_bytes) {
    static const struct {
        const char *word;
        enum noise noise;
    } words[] = {
        {"rt", NOISE}, {"via", NOISE}, {"http", LINK}, {"https", LINK}, {"www", LINK}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i].word) == n_bytes &&
            memcmp(start, words[i].word, n_bytes) == 0)
            return words[i].noise;
    return NO_NOISE;
}

struct words {
    const uint8_t *p;
    size_t n, at;
};

/* Goes behind the word that begins at w->at; its hash, 0 when there is none. A letter of a
 * script without spaces is a word of its own. */
static uint64_t take_word(struct words *w, char start[8], size_t *n_bytes) {
    uint64_t hash = 0;
    bool is_over = false;
    *n_bytes = 0;
    while (w->at < w->n && !is_over) {
        struct normalised c = normalise_next(w->p + w->at, w->n - w->at);
        is_over = c.class == NORMALISE_UNSPACED;
        bool is_part = c.class == NORMALISE_WORD || is_over || c.bytes[0] == '_';
        if (c.class != NORMALISE_DROPPED && (!is_part || (is_over && *n_bytes > 0)))
            break;
        w->at += c.n_source;
        for (size_t i = 0; i < c.n_bytes; i++) {
            if (*n_bytes < 8)
                start[*n_bytes] = (char)c.bytes[i];
            (*n_bytes)++;
            hash = (hash ^ c.bytes[i]) * UINT64_C(0x100000001B3) + 1;
        }
    }
    return *n_bytes ? mix(hash) | 1 : 0;
}

static void skip_chunk(struct words *w) {
    while (w->at < w->n) {
        struct normalised c = normalise_next(w->p + w->at, w->n - w->at);
        if (c.class == NORMALISE_SPACE)
            return;
        w->at += c.n_source;
    }
}

/* The hash of the next word that counts, never 0; 0 at the end. */
static uint64_t next_word(struct words *w) {
    uint8_t before = ' ';
    while (w->at < w->n) {
        char start[8];
        size_t n_bytes;
        uint64_t hash = take_word(w, start, &n_bytes);
        if (n_bytes == 0) {
            if (w->at == w->n)
                break;
            struct normalised c = normalise_next(w->p + w->at, w->n - w->at);
            before = c.bytes[0];
            w->at += c.n_source;
            continue;
        }
        enum noise noise = noise_of(start, n_bytes);
        if (noise == NO_NOISE && before != '@')
            return hash;
        if (noise == LINK)
            skip_chunk(w);
        before = ' ';
    }
    return 0;
}

uint64_t fold_fingerprint(struct view text) {
    struct words w = {(const uint8_t *)text.data, text.n_bytes, 0};
    struct counts counts = {.n = 0};
    uint64_t all = 0, last[SHINGLE] = {0}, hash;
    size_t n = 0;
    for (; (hash = next_word(&w)); n++) {
        all = mix(all ^ hash) + n;
        memmove(last, last + 1, sizeof last - sizeof *last);
        last[SHINGLE - 1] = hash;
        if (n + 1 >= SHINGLE)
            count(&counts, mix(mix(mix(last[0]) + last[1]) + last[2]));
    }
    if (n == 0)
        return 0;
    if (n < FOLD_MIN_WORDS)
        return all | EXACT;
    uint64_t fingerprint = majority(&counts) & ~EXACT;
    return fingerprint ? fingerprint : 1;
}

/* ---- What is remembered ---- */

/* Posts are numbered as they come, from 1; number n lies in slot n % n_slots. A chain leads
 * from a newer post to older ones, and ends where a number is older than the oldest. */
struct post {
    uint64_t fingerprint; /* 0: forgotten */
    int64_t posted_ns;
    uint64_t key_hash;
    uint64_t key_at; /* in the ring, counted from the beginning of time */
    uint32_t n_key;
    uint32_t drugs;         /* a hash of their names; 0: not known */
    uint32_t back[N_BANDS]; /* how far back the chain's next number is; 0: it ends */
    uint32_t back_key;
};
_Static_assert(sizeof(struct post) == 64, "one line of the cache");

struct fold {
    size_t n_slots, n_ring, n_key_buckets;
    int64_t window_ns;
    uint64_t newest, oldest; /* numbers; newest 0: none */
    uint64_t ring_end;       /* bytes ever put into the ring */
    struct post *posts;
    char *ring;
    uint64_t *keys;               /* [n_key_buckets] the newest post of a key's hash */
    uint64_t (*bands)[N_BUCKETS]; /* [N_BANDS] */
};

enum status fold_open(const struct fold_options *options, struct fold **out,
                      struct error *err) {
    *out = NULL;
    struct fold *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(err, STATUS_NO_MEMORY, "no memory to remember posts");
    f->n_slots = options->n_remembered ? options->n_remembered : N_REMEMBERED;
    f->window_ns = options->window_ns ? options->window_ns : WINDOW_NS;
    f->oldest = 1;
    enum status status = STATUS_OK;
    if (f->n_slots > MAX_REMEMBERED) {
        status = error_set(err, STATUS_LIMIT, "cannot remember more than %zu posts",
                           MAX_REMEMBERED);
    } else {
        for (f->n_key_buckets = 64; f->n_key_buckets < f->n_slots;)
            f->n_key_buckets *= 2;
        f->n_ring = f->n_slots * KEY_BYTES_A_POST + STORE_KEY_BYTES;
        f->posts = calloc(f->n_slots, sizeof *f->posts);
        f->keys = calloc(f->n_key_buckets, sizeof *f->keys);
        f->bands = calloc(N_BANDS, sizeof *f->bands);
        f->ring = malloc(f->n_ring);
        if (!f->posts || !f->keys || !f->bands || !f->ring)
            status = error_set(err, STATUS_NO_MEMORY, "no memory to remember %zu posts",
                               f->n_slots);
    }
    if (status != STATUS_OK) {
        fold_close(f);
        return status;
    }
    *out = f;
    return STATUS_OK;
}

void fold_close(struct fold *f) {
    if (!f)
        return;
    free(f->posts);
    free(f->keys);
    free(f->bands);
    free(f->ring);
    free(f);
}

static struct post *post_of(const struct fold *f, uint64_t number) {
    return &f->posts[number % f->n_slots];
}

static uint64_t *band_of(struct fold *f, uint64_t fingerprint, unsigned band) {
    return &f->bands[band][fingerprint >> 16 * band & 0xFFFF];
}

static uint64_t hash_bytes(struct view v) {
    uint64_t hash = v.n_bytes;
    for (size_t i = 0; i < v.n_bytes; i++)
        hash = (hash ^ (uint8_t)v.data[i]) * UINT64_C(0x100000001B3);
    return mix(hash);
}

/* A key lies in one piece: where it would reach over the ring's end, it begins anew. */
static const char *key_of(const struct fold *f, const struct post *post) {
    return f->ring + post->key_at % f->n_ring;
}

static struct post *find_key(const struct fold *f, struct view key, uint64_t hash) {
    uint64_t number = f->keys[hash & (f->n_key_buckets - 1)];
    while (number >= f->oldest) {
        struct post *post = post_of(f, number);
        if (post->key_hash == hash && post->fingerprint != 0 &&
            view_equal(view_of(key_of(f, post), post->n_key), key))
            return post;
        if (post->back_key == 0)
            break;
        number -= post->back_key;
    }
    return NULL;
}

static void remember(struct fold *f, struct view key, uint64_t hash,
                     uint64_t fingerprint, int64_t posted_ns, uint32_t drugs) {
    if (fingerprint == 0 || key.n_bytes == 0 || key.n_bytes > STORE_KEY_BYTES)
        return;
    struct post *known = find_key(f, key, hash);
    if (known && known->fingerprint == fingerprint)
        return;
    if (known)
        known->fingerprint = 0; /* has other words now */
    if (f->n_ring - f->ring_end % f->n_ring < key.n_bytes)
        f->ring_end += f->n_ring - f->ring_end % f->n_ring;
    uint64_t number = ++f->newest;
    /* What its slot and its key are written over is forgotten. */
    if (number >= f->n_slots && f->oldest <= number - f->n_slots)
        f->oldest = number - f->n_slots + 1;
    while (f->oldest < number &&
           post_of(f, f->oldest)->key_at + f->n_ring < f->ring_end + key.n_bytes)
        f->oldest++;
    struct post *post = post_of(f, number);
    *post = (struct post){.fingerprint = fingerprint,
                          .posted_ns = posted_ns,
                          .key_hash = hash,
                          .key_at = f->ring_end,
                          .n_key = (uint32_t)key.n_bytes,
                          .drugs = drugs};
    memcpy(f->ring + f->ring_end % f->n_ring, key.data, key.n_bytes);
    f->ring_end += key.n_bytes;
    for (unsigned b = 0; b < N_BANDS; b++) {
        uint64_t *bucket = band_of(f, fingerprint, b);
        post->back[b] = *bucket >= f->oldest ? (uint32_t)(number - *bucket) : 0;
        *bucket = number;
    }
    uint64_t *bucket = &f->keys[hash & (f->n_key_buckets - 1)];
    post->back_key = *bucket >= f->oldest ? (uint32_t)(number - *bucket) : 0;
    *bucket = number;
}

enum status fold_remember(struct fold *f, struct view key, uint64_t fingerprint,
                          int64_t posted_ns, struct error *err) {
    (void)err;
    remember(f, key, hash_bytes(key), fingerprint, posted_ns, 0);
    return STATUS_OK;
}

void fold_forget(struct fold *f, struct view key) {
    struct post *post = find_key(f, key, hash_bytes(key));
    if (post)
        post->fingerprint = 0;
}

/* ---- Posts that come ---- */

/* A hash of the drugs' names in a post's JSON, whatever their order and number; 0 without. */
static uint32_t drugs_of(struct view json) {
    static const char mark[] = "\"drug\":\"";
    uint64_t seen[16], sum = 0;
    size_t n_seen = 0;
    const char *at = json.data, *end = at ? at + json.n_bytes : at;
    while (at && n_seen < sizeof seen / sizeof seen[0] &&
           (at = memmem(at, (size_t)(end - at), mark, sizeof mark - 1))) {
        at += sizeof mark - 1;
        const char *stop = memchr(at, '"', (size_t)(end - at));
        if (!stop)
            break;
        uint64_t hash = hash_bytes(view_of(at, (size_t)(stop - at)));
        size_t i = 0;
        while (i < n_seen && seen[i] != hash)
            i++;
        if (i == n_seen) {
            seen[n_seen++] = hash;
            sum += hash;
        }
        at = stop;
    }
    return n_seen ? (uint32_t)(sum >> 32) | 1 : 0;
}

static bool is_same(const struct fold *f, const struct post *post, uint64_t fingerprint,
                    int64_t posted_ns, uint32_t drugs) {
    uint64_t differs = post->fingerprint ^ fingerprint;
    if (post->fingerprint == 0 || (differs & EXACT) ||
        ((fingerprint & EXACT) ? differs != 0
                               : __builtin_popcountll(differs) > FOLD_DISTANCE) ||
        (drugs && post->drugs && drugs != post->drugs))
        return false;
    int64_t apart;
    return posted_ns == 0 || post->posted_ns == 0 ||
           (!__builtin_sub_overflow(posted_ns, post->posted_ns, &apart) &&
            apart <= f->window_ns && apart >= -f->window_ns);
}

static const struct post *find_same(struct fold *f, uint64_t fingerprint,
                                    int64_t posted_ns, uint32_t drugs) {
    /* Within three bits, one of four bands is the same. */
    unsigned n_bands = fingerprint & EXACT ? 1 : N_BANDS;
    for (unsigned b = 0; b < n_bands; b++) {
        uint64_t number = *band_of(f, fingerprint, b);
        for (int i = 0; i < FOLD_MAX_TRIES && number >= f->oldest; i++) {
            const struct post *post = post_of(f, number);
            if (is_same(f, post, fingerprint, posted_ns, drugs))
                return post;
            if (post->back[b] == 0)
                break;
            number -= post->back[b];
        }
    }
    return NULL;
}

enum status fold_item(struct fold *f, struct store_item *item, struct arena *arena,
                      struct error *err) {
    if (item->kind == STORE_DELETE)
        fold_forget(f, item->key);
    if (item->kind != STORE_POST || item->fingerprint == 0)
        return STATUS_OK;
    uint64_t hash = hash_bytes(item->key);
    uint32_t drugs = drugs_of(item->drugs);
    const struct post *same = NULL;
    if (item->fold == STORE_NO_FOLD && !find_key(f, item->key, hash))
        same = find_same(f, item->fingerprint, item->posted_ns, drugs);
    if (!same) {
        if (item->fold == STORE_NO_FOLD || item->text.n_bytes > 0)
            remember(f, item->key, hash, item->fingerprint, item->posted_ns, drugs);
        return STATUS_OK;
    }
    struct view original;
    enum status status =
        arena_copy(arena, view_of(key_of(f, same), same->n_key), &original, err);
    if (status != STATUS_OK)
        return status;
    *item = (struct store_item){.kind = STORE_POST,
                                .raw_id = item->raw_id,
                                .mode = item->mode,
                                .source = item->source,
                                .key = original,
                                .posted_ns = item->posted_ns,
                                .received_ns = item->received_ns,
                                .fold = STORE_DUPLICATE,
                                .fold_key = item->key};
    return STATUS_OK;
}
