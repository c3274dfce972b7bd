/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parity.c - the whole CUDA engine, on both paths, against PyTorch's answers and the
 * reference engine's: sequences alone and packed, with tags and without, two batches in
 * flight, as many tokens as fill one bucket after the other.
 *
 * Gates (fp16): logits off by 1e-2 at most and by 2e-3 on average, tags by 2e-2 at most, a
 * third of that for small models; the same label unless the margin is under 2e-2. What a
 * sequence is packed with moves its logits by 2e-3 at most, for another tile may compute
 * them; when the same batch comes again, its bits are the same. Each model runs with our
 * products and graphs, with cuBLASLt's and no graphs, and on a GPU with what the engine
 * finds best.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "tests/cuda/subject.h"

#define SHARED_MODEL "../shared/models/ade-minilm"
#define DEFAULT_MODEL "weights/ade"
enum { MAX_BATCHES = 64, MAX_PACKED = 16384 };

static const struct gates {
    double max_logit, mean_logit, max_tag;
} gates = {1e-2, 2e-3, 2e-2}, small_gates = {3e-3, 6e-4, 5e-3};
static const double label_margin = 2e-2, max_packing = 2e-3;

struct spread {
    double max, sum;
    size_t n;
};

struct outcome {
    struct spread logits, tags, packing;
    int32_t n_labels_differ, n_tokens, n_batches;
};

static void spread_add(struct spread *s, const float *want, const float *got,
                       size_t n) {
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)want[i] - (double)got[i]);
        if (!(off <= s->max) && !isnan(s->max)) /* a NaN comes in, and stays */
            s->max = off;
        s->sum += off;
    }
    s->n += n;
}

static double spread_mean(const struct spread *s) {
    return s->n ? s->sum / (double)s->n : 0;
}

/* ---- answers ---------------------------------------------------------------------- */

static int32_t largest(const float *values, int32_t n) {
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        at = values[i] > values[at] ? i : at;
    return at;
}

/* Whether some label is another, and not for a hair. */
static bool labels_differ(const struct model_config *config, const float *want,
                          const float *got) {
    int32_t n = config->n_labels;
    if (config->problem_type == PROBLEM_REGRESSION || n < 2)
        return false;
    for (int32_t i = 0; config->problem_type == PROBLEM_MULTI_LABEL && i < n; i++)
        if ((want[i] > 0) != (got[i] > 0) && fabsf(want[i]) >= (float)label_margin)
            return true;
    if (config->problem_type == PROBLEM_MULTI_LABEL)
        return false;
    int32_t a = largest(want, n), b = largest(got, n);
    return a != b && want[a] - want[b] >= (float)label_margin;
}

static void take(struct outcome *o, const struct subject *s, const struct packed *p) {
    const struct model_config *config = &s->c->config;
    for (int32_t b = 0; b < p->batch.n_sequences; b++) {
        const struct row *row = &s->rows[p->row_of[b]];
        const float *logits = p->logits + b * config->n_labels;
        spread_add(&o->logits, row->logits, logits, (size_t)config->n_labels);
        o->n_labels_differ += labels_differ(config, row->logits, logits);
        if (p->tags)
            spread_add(&o->tags, row->tags,
                       p->tags + p->offsets[b] * config->n_tag_labels,
                       (size_t)(row->n_ids * config->n_tag_labels));
    }
    o->n_tokens += batch_n_tokens(&p->batch);
    o->n_batches++;
}

/* ---- batches ---------------------------------------------------------------------- */

/* Rows from *next on that fit into n_tokens, in rounds, until nothing more does. */
static struct packed fill(const struct subject *s, int32_t *next, int32_t n_tokens,
                          int32_t max_sequences, bool wants_tags) {
    static int32_t row_of[MAX_PACKED];
    int32_t n = 0, n_passed = 0, n_left = n_tokens;
    while (n < max_sequences && n < MAX_PACKED && n_passed < s->n_rows) {
        int32_t i = *next;
        *next = (i + 1) % s->n_rows;
        n_passed++;
        if (s->rows[i].n_ids > n_left)
            continue;
        n_left -= s->rows[i].n_ids;
        row_of[n++] = i;
        n_passed = 0;
    }
    if (n == 0)
        check_stop("%s: no row of %d tokens or fewer", s->name, n_tokens);
    return packed_make(s, row_of, n, wants_tags);
}

/* Every n-th row alone, and the same rows in one batch: other tiles, about the same. */
static void run_alone(struct engine *e, const struct subject *s, int32_t every,
                      struct outcome *o) {
    const struct model_config *config = &s->c->config;
    int32_t row_of[MAX_ROWS], n = 0, n_tokens = 0;
    for (int32_t i = 0; i < s->n_rows; i += every) {
        if (n_tokens + s->rows[i].n_ids > e->info.max_tokens)
            break;
        n_tokens += s->rows[i].n_ids;
        row_of[n++] = i;
    }
    for (int with_tags = 0; with_tags <= (config->n_tag_labels ? 1 : 0); with_tags++) {
        struct packed together = packed_make(s, row_of, n, with_tags);
        run_in_flight(e, &together, 1);
        take(o, s, &together);
        for (int32_t b = 0; b < n; b++) {
            struct packed alone = packed_make(s, row_of + b, 1, with_tags);
            run_in_flight(e, &alone, 1);
            take(o, s, &alone);
            spread_add(&o->packing, alone.logits,
                       together.logits + b * config->n_labels,
                       (size_t)config->n_labels);
            packed_free(&alone);
        }
        packed_free(&together);
    }
}

/* Batches of n_tokens[] tokens in flight, then each again by itself: the same bits. */
static void run_filled(struct engine *e, const struct subject *s,
                       const int32_t *n_tokens, int32_t n, struct outcome *o) {
    const struct model_config *config = &s->c->config;
    struct packed batches[MAX_BATCHES];
    struct error err = {0};
    int32_t next = 0;
    for (int32_t i = 0; i < n; i++)
        batches[i] = fill(s, &next, n_tokens[i], e->info.max_sequences,
                          config->n_tag_labels && i % 2);
    run_in_flight(e, batches, n);
    for (int32_t i = 0; i < n; i++) {
        struct packed *p = &batches[i];
        size_t n_logits = packed_n_logits(p, config), n_tags = packed_n_tags(p, config);
        take(o, s, p);
        if (!is_emulated || i % 3 == 0) {
            float *logits = need(calloc(n_logits, sizeof *logits)),
                  *tags = need(calloc(n_tags + 1, sizeof *tags));
            if (engine_run(e, &p->batch, logits, tags, &err) != STATUS_OK)
                check_fail("%s: %s", s->name, err.message);
            CHECK(memcmp(logits, p->logits, n_logits * sizeof *logits) == 0,
                  "%s: logits of %d tokens, run again, are others", s->name,
                  batch_n_tokens(&p->batch));
            CHECK(!n_tags || memcmp(tags, p->tags, n_tags * sizeof *tags) == 0,
                  "%s: tags of %d tokens, run again, are others", s->name,
                  batch_n_tokens(&p->batch));
            free(logits);
            free(tags);
        }
        packed_free(p);
    }
}

/* Sums of tokens: at and beside what buckets may be, as many as `most`. */
static int32_t fillings(int32_t most, int32_t *n_tokens) {
    static const int32_t sizes[] = {1,   2,    7,    8,    9,    16,   17,   24,
                                    31,  33,   48,   63,   64,   65,   97,   128,
                                    129, 192,  200,  257,  384,  500,  513,  700,
                                    769, 1024, 1500, 2048, 3000, 4096, 8192, 16384};
    int32_t n = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] <= most)
            n_tokens[n++] = sizes[i];
    return n;
}

static void judge(const struct subject *s, const char *path, const struct outcome *o) {
    printf(
        "        %s, %s: %d batches, %d tokens; logits %.1e max, %.1e mean; tags %.1e "
        "max, %.1e mean; packing %.1e\n",
        s->name, path, o->n_batches, o->n_tokens, o->logits.max,
        spread_mean(&o->logits), o->tags.max, spread_mean(&o->tags), o->packing.max);
    const struct gates *g = s->is_small ? &small_gates : &gates;
    CHECK(o->logits.max <= g->max_logit, "%s, %s: a logit is off by %g, at most %g",
          s->name, path, o->logits.max, g->max_logit);
    CHECK(spread_mean(&o->logits) <= g->mean_logit,
          "%s, %s: logits are off by %g on average, at most %g", s->name, path,
          spread_mean(&o->logits), g->mean_logit);
    CHECK(o->tags.max <= g->max_tag, "%s, %s: a tag is off by %g, at most %g", s->name,
          path, o->tags.max, g->max_tag);
    CHECK(o->packing.max <= max_packing,
          "%s, %s: packing moves a logit by %g, at most %g", s->name, path,
          o->packing.max, max_packing);
    CHECK(o->n_labels_differ == 0, "%s, %s: %d labels are others", s->name, path,
          o->n_labels_differ);
}

/* A case's argument: the path, and what the engine has to do without. */
enum { WMMA = 0, MMA = 1, OWN = 0, BLAS = 2, TUNED = 4 };

/* VIGIL_CUDA_DISABLE. In the emulation a large model has no graphs: capturing them takes a
 * forward pass each. */
static const char *switches(const struct subject *s, int way) {
    if (way & TUNED)
        return "cache";
    if (way & BLAS)
        return "cache,tuning,own,graphs";
    return is_emulated && s->c->config.dim > 100 ? "cache,tuning,cublas,graphs"
                                                 : "cache,tuning,cublas";
}

/* most: tokens of a batch; every: which rows run alone. */
static void check_subject(const struct subject *s, int way, int32_t most,
                          int32_t every) {
    struct outcome o = {0};
    int32_t n_tokens[MAX_BATCHES];
    const char *path = way & MMA ? "mma" : "wmma";
    struct engine *e = cuda_engine_open_on(path, switches(s, way), s->c, most);
    CHECK(e->info.n_in_flight == ENGINE_MAX_IN_FLIGHT, "%d batches in flight",
          e->info.n_in_flight);
    CHECK(strcmp(e->info.isa, path) == 0 && strcmp(e->info.dtype, "fp16") == 0,
          "asked for %s in fp16, got %s in %s", path, e->info.isa, e->info.dtype);
    run_alone(e, s, every, &o);
    run_filled(e, s, n_tokens, fillings(most, n_tokens), &o);
    judge(s, path, &o);
    engine_close(e);
}

/* ---- models ----------------------------------------------------------------------- */

static bool exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0;
}

static void scale_weights(const struct tensor *t, float factor) {
    float *values = (float *)(uintptr_t)t->data;
    for (size_t i = 0; i < (size_t)t->n_rows * (size_t)t->n_cols; i++)
        values[i] *= factor;
}

static void test_tiny_models(int way) {
    static const char root[] = "tests/data/models";
    static struct subject s;
    int n_models = 0;
    DIR *d = opendir(root);
    for (const struct dirent *entry; d && (entry = readdir(d));) {
        char directory[520], golden[600];
        snprintf(directory, sizeof directory, "%s/%s", root, entry->d_name);
        snprintf(golden, sizeof golden, "%s/golden.jsonl", directory);
        if (entry->d_name[0] == '.' || !exists(golden))
            continue;
        struct checkpoint *c = model_open(directory);
        s = (struct subject){.name = entry->d_name, .c = c, .is_small = true};
        subject_read(&s, directory, 512);
        check_subject(&s, way, is_emulated ? 300 : 16384, is_emulated ? 9 : 1);
        subject_free(&s);
        model_close(c);
        n_models++;
    }
    if (d)
        closedir(d);
    CHECK(n_models >= 4, "%d models under %s", n_models, root);
}

static void test_trained_model(int way) {
    static struct subject s;
    if (!exists(SHARED_MODEL))
        check_skip(SHARED_MODEL " is not here");
    struct checkpoint *c = model_open(SHARED_MODEL);
    s = (struct subject){.name = "ade-minilm", .c = c};
    subject_read(&s, SHARED_MODEL, is_emulated ? 24 : 512);
    check_subject(&s, way, is_emulated ? 24 : 16384, is_emulated ? 60 : 1);
    subject_free(&s);
    model_close(c);
}

/* The model that ships: int8, whose weights the engine turns into fp16. What the reference
 * engine answered is kept from case to case: it takes its time. */
static void test_default_model(int way) {
    static const int32_t lengths[] = {1, 9, 14, 30, 65, 128, 200, 7};
    static struct subject s;
    if (!s.n_rows) {
        s = (struct subject){.name = DEFAULT_MODEL, .c = model_open(DEFAULT_MODEL)};
        random_state = 11;
        subject_answer(&s, lengths, is_emulated ? 3 : 8);
    }
    check_subject(&s, way, is_emulated ? 24 : 2048, is_emulated ? 2 : 1);
}

/* random_model's weights have a deviation of 0.06: rather much for sums of 3072. */
static struct checkpoint *base_model(const struct model_config *config) {
    struct checkpoint *c = random_model(*config, 5);
    for (int32_t i = 0; i < config->n_layers; i++) {
        struct layer_tensors *l = &c->layers[i];
        const struct linear_tensors *linears[] = {&l->q,   &l->k,  &l->v,
                                                  &l->out, &l->up, &l->down};
        for (size_t k = 0; k < sizeof linears / sizeof *linears; k++)
            scale_weights(&linears[k]->weight, 0.02f / 0.06f);
    }
    scale_weights(&c->pre_classifier.weight, 0.02f / 0.06f);
    scale_weights(&c->classifier.weight, 0.02f / 0.06f);
    scale_weights(&c->tagger.weight, 0.02f / 0.06f);
    return c;
}

/* DistilBERT-base's shape and spread of weights, with fewer words; the emulation takes one
 * layer of six. */
static void test_distilbert_base(int way) {
    static const int32_t lengths[] = {1, 16, 7, 40, 128, 300};
    static struct subject s;
    const struct model_config config = {.n_layers = is_emulated ? 1 : 6,
                                        .n_heads = 12,
                                        .dim = 768,
                                        .hidden_dim = 3072,
                                        .vocab_size = 1000,
                                        .max_positions = is_emulated ? 16 : 512,
                                        .n_labels = 2,
                                        .n_tag_labels = 7};
    if (!s.n_rows) {
        s = (struct subject){.name = "DistilBERT-base", .c = base_model(&config)};
        subject_answer(&s, lengths, is_emulated ? 2 : 6);
    }
    check_subject(&s, way, is_emulated ? 17 : 16384, is_emulated ? 2 : 1);
}

/* Head widths that are padded and that are not, heads of many kinds, ReLU, no tags. */
static const struct model_config shapes[] = {
    {.n_layers = 2,
     .n_heads = 4,
     .dim = 64,
     .hidden_dim = 96,
     .vocab_size = 211,
     .max_positions = 130,
     .n_labels = 2,
     .n_tag_labels = 7},
    {.n_layers = 1,
     .n_heads = 3,
     .dim = 36,
     .hidden_dim = 50,
     .vocab_size = 97,
     .max_positions = 64,
     .n_labels = 1},
    {.n_layers = 3,
     .n_heads = 6,
     .dim = 48,
     .hidden_dim = 200,
     .vocab_size = 50,
     .max_positions = 40,
     .n_labels = 33,
     .n_tag_labels = 3,
     .has_relu_activation = true},
    {.n_layers = 1,
     .n_heads = 2,
     .dim = 128,
     .hidden_dim = 256,
     .vocab_size = 100,
     .max_positions = 512,
     .n_labels = 3},
    {.n_layers = 1,
     .n_heads = 1,
     .dim = 100,
     .hidden_dim = 64,
     .vocab_size = 30,
     .max_positions = 300,
     .n_labels = 4,
     .n_tag_labels = 1},
    {.n_layers = 1,
     .n_heads = 5,
     .dim = 5,
     .hidden_dim = 1,
     .vocab_size = 7,
     .max_positions = 70,
     .n_labels = 2,
     .n_tag_labels = 2},
};

/* Queries and keys that are large enough for attention to choose among the keys. */
static struct checkpoint *odd_model(size_t i) {
    struct checkpoint *c = random_model(shapes[i], 21 + i);
    for (int32_t k = 0; k < shapes[i].n_layers; k++) {
        scale_weights(&c->layers[k].q.weight, 4.0f);
        scale_weights(&c->layers[k].k.weight, 4.0f);
    }
    return c;
}

static void test_odd_shapes(int way) {
    static const int32_t wanted[] = {1, 17, 64, 127, 128, 129, 300, 512, 2, 33, 5, 8};
    static struct subject s;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int32_t lengths[12], n = 0;
        char name[64];
        for (size_t k = 0; k < 12; k++)
            if (wanted[k] <= shapes[i].max_positions)
                lengths[n++] = wanted[k];
        struct checkpoint *c = odd_model(i);
        snprintf(name, sizeof name, "%d heads of %d", shapes[i].n_heads,
                 shapes[i].dim / shapes[i].n_heads);
        s = (struct subject){.name = name, .c = c, .is_small = true};
        subject_answer(&s, lengths, n);
        check_subject(&s, way, is_emulated ? 700 : 4096, is_emulated ? 3 : 1);
        subject_free(&s);
        random_model_free(c);
    }
}

#define CASES(name, run)                                                               \
    {name " wmma, ours", run, WMMA | OWN}, {name " wmma, cuBLASLt", run, WMMA | BLAS}, \
        {name " mma, ours", run, MMA | OWN}, {name " mma, cuBLASLt", run, MMA | BLAS}, \
        CASES_TUNED(name, run)
#ifdef VIGIL_CUDA_EMULATION /* which has no clock to tune by */
#define CASES_TUNED(name, run)
#else
#define CASES_TUNED(name, run)                                                         \
    {name " wmma, tuned", run, WMMA | TUNED}, {name " mma, tuned", run, MMA | TUNED},
#endif

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
        CASES("tiny models", test_tiny_models) CASES("odd shapes", test_odd_shapes)
            CASES("trained model", test_trained_model)
                CASES("default model", test_default_model)
                    CASES("DistilBERT-base", test_distilbert_base)};
    return check_main(cases, sizeof cases / sizeof *cases, argc, argv);
}
