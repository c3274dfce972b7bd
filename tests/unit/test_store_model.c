/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store_model.c - thousands of random calls against a model in memory that says in a few
 * lines what the store must hold; and several workers on one store at the same time.
 *
 * VIGIL_TEST_SEED chooses another run.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/store_fixture.h"

#define N_KEYS 20
#define N_AGGREGATES 4 /* the last of them */
#define MAX_HELD 24

static uint64_t seed;
static uint32_t below(uint32_t n) {
    seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 33) % n;
}

/* ---- The model ---- */

struct post {
    int id; /* 0: not there */
    int64_t version;
    int n_folds[4];   /* by kind */
    unsigned results; /* a bit a version */
    bool is_queued, is_free;
    int tries, lapses, holder;
    char worker; /* 0: nobody has it, or has let it lapse */
};

struct fold {
    int kind; /* 0: none */
    int into, post_id;
};

static struct {
    struct post posts[N_KEYS];
    struct fold folds[N_KEYS];
    bool is_tombstone[N_KEYS], is_seen[N_KEYS], is_dead[N_KEYS];
    int last_id, last_holder, n_counted, n_folds_counted;
} m;

static char keys[N_KEYS][16];

static bool is_aggregate(int k) {
    return k >= N_KEYS - N_AGGREGATES;
}

static int key_of(int id) {
    for (int k = 0; k < N_KEYS; k++)
        if (id > 0 && m.posts[k].id == id)
            return k;
    return -1;
}

static void model_remove(int k) {
    m.posts[k] = (struct post){0};
    m.is_dead[k] = false;
}

static enum status model_put(int k, int64_t version) {
    struct post *p = &m.posts[k];
    if (p->id > 0 && version <= p->version)
        return STATUS_OK;
    if (p->id == 0) {
        if (m.is_tombstone[k] || m.is_seen[k] ||
            (m.folds[k].kind && m.folds[k].kind != STORE_QUOTE))
            return STATUS_OK;
        p->id = ++m.last_id;
        for (int i = 0; i < N_KEYS; i++)
            if (m.folds[i].kind && m.folds[i].into == k) {
                p->n_folds[m.folds[i].kind]++;
                m.folds[i].post_id = p->id;
            }
    }
    p->version = version;
    p->is_queued = p->is_free = true;
    p->tries = p->lapses = p->worker = 0;
    m.is_dead[k] = false;
    return STATUS_OK;
}

static void model_fold(int kind, int fold, int k, int64_t version, bool has_text) {
    if (fold == k)
        return;
    if (has_text && !(m.is_tombstone[fold] && version == 0))
        model_put(k, version);
    if (m.is_tombstone[fold] || m.is_tombstone[k])
        return;
    if (kind != STORE_QUOTE && (m.posts[fold].id > 0 || m.is_seen[fold]))
        return;
    if (m.folds[fold].kind)
        return;
    int into = k, post_id = m.posts[k].id;
    if (post_id == 0 && m.folds[k].kind && m.folds[k].kind != STORE_QUOTE) {
        into = m.folds[k].into;
        post_id = m.folds[k].post_id;
    }
    m.folds[fold] = (struct fold){kind, into, post_id};
    int on = key_of(post_id);
    if (on >= 0)
        m.posts[on].n_folds[kind]++;
    else if (m.is_seen[into])
        m.n_folds_counted++;
}

static void model_delete(int k) {
    m.is_tombstone[k] = true;
    model_remove(k);
    for (int i = 0; i < N_KEYS; i++)
        if (m.folds[i].into == k)
            m.folds[i] = (struct fold){0};
    struct fold f = m.folds[k];
    m.folds[k] = (struct fold){0};
    int on = f.kind ? key_of(f.post_id) : -1;
    if (on < 0)
        return;
    struct post *p = &m.posts[on];
    p->n_folds[f.kind]--;
    if (f.kind == STORE_REPOST && p->version == 0 && p->n_folds[STORE_REPOST] == 0)
        model_remove(on);
}

static void model_finish(int k) {
    struct post *p = &m.posts[k];
    p->is_queued = false;
    if (!is_aggregate(k)) {
        p->results |= 1u << p->version;
        return;
    }
    m.n_counted++;
    for (int kind = STORE_REPOST; kind <= STORE_DUPLICATE; kind++)
        m.n_folds_counted += p->n_folds[kind];
    m.is_seen[k] = true;
    model_remove(k);
}

/* The keys whose entries a claim takes, in their order: those that have lapsed too often, or
 * the others. */
static size_t model_take(char worker, bool is_alone, bool is_short, size_t cap,
                         int out[]) {
    size_t n = 0;
    for (int id = 1; id <= m.last_id && n < cap; id++) {
        int k = key_of(id);
        struct post *p = k < 0 ? NULL : &m.posts[k];
        if (!p || !p->is_queued || !p->is_free ||
            (p->lapses + (p->worker != 0) >= STORE_ALONE_LAPSES) != is_alone)
            continue;
        p->lapses += p->worker != 0;
        p->worker = worker;
        p->is_free = is_short;
        p->holder = m.last_holder;
        out[n++] = k;
    }
    return n;
}

static bool model_has(char worker) {
    for (int k = 0; k < N_KEYS; k++)
        if (m.posts[k].is_queued && !m.posts[k].is_free && m.posts[k].worker == worker)
            return true;
    return false;
}

/* The keys that a claim gives. */
static size_t model_claim(char worker, bool is_short, size_t cap, int out[],
                          bool *is_alone) {
    m.last_holder++;
    for (;;) {
        size_t n = 0, n_taken = model_take(worker, false, is_short, cap, out);
        *is_alone = n_taken == 0;
        if (n_taken == 0 && !model_has(worker))
            n_taken = model_take(worker, true, is_short, 1, out);
        for (size_t i = 0; i < n_taken; i++) {
            struct post *p = &m.posts[out[i]];
            if (p->lapses < STORE_MAX_LAPSES) {
                out[n++] = out[i];
            } else {
                p->is_queued = false;
                m.is_dead[out[i]] = true;
            }
        }
        if (n > 0 || n_taken == 0)
            return n;
    }
}

/* ---- The same calls to both ---- */

static struct held {
    struct store_claim claim;
    int k, id, holder;
    int64_t version;
    const char *worker;
} held[MAX_HELD];
static size_t n_held;

static void write_text(char out[64], int k, int64_t version) {
    snprintf(out, 64, "text of %d in version %d", k, (int)version);
}

static struct store_item random_item(void) {
    static char texts[16][64];
    static size_t n_texts;
    int k = (int)below(N_KEYS), other = (int)below(N_KEYS);
    int64_t version = below(5);
    char *text = texts[n_texts++ % 16];
    write_text(text, k, version);
    struct store_item item = an_item(keys[k], version, text);
    uint32_t what = below(20);
    if (what < 2) {
        item = a_delete(keys[k]);
    } else if (what < 10) {
        item.fold = (enum store_fold)(1 + below(3));
        item.fold_key = view_of_string(keys[other]);
        if (item.fold == STORE_REPOST && below(2)) {
            item.version = 0;
            write_text(text, k, 0);
        } else if (version > 0 && below(2))
            item.text = VIEW("");
    } else if (version == 0) {
        item.version = 1;
        write_text(text, k, 1);
    }
    item.mode = is_aggregate(k) ? STORE_AGGREGATE : STORE_PSEUDONYMOUS;
    return item;
}

static int number_of(struct view key) {
    for (int k = 0; k < N_KEYS; k++)
        if (view_equal(key, view_of_string(keys[k])))
            return k;
    return -1;
}

static void take_both(struct fixture *f) {
    struct store_item items[6];
    size_t n = 1 + below(6);
    for (size_t i = 0; i < n; i++) {
        items[i] = random_item();
        int k = number_of(items[i].key);
        if (items[i].kind == STORE_DELETE)
            model_delete(k);
        else if (items[i].fold == STORE_NO_FOLD)
            model_put(k, items[i].version);
        else
            model_fold(items[i].fold, number_of(items[i].fold_key), k, items[i].version,
                       items[i].text.n_bytes > 0);
    }
    take(f, items, n);
}

static void claim_both(struct fixture *f) {
    struct store_claim claims[4];
    int expected[4];
    size_t cap = 1 + below(4);
    if (n_held + cap > MAX_HELD)
        return;
    bool is_short = below(3) == 0;
    const char *worker = below(2) ? "a" : "b";
    size_t n = claim(f, worker, is_short ? 1 : LONG_NS, claims, cap);
    bool is_alone;
    assert_int_equal(n, model_claim(worker[0], is_short, cap, expected, &is_alone));
    for (size_t i = 0; i < n; i++) {
        int k = expected[i];
        struct post *p = &m.posts[k];
        assert_true(view_equal(claims[i].key, view_of_string(keys[k])));
        assert_int_equal(claims[i].version, p->version);
        assert_int_equal(claims[i].tries, p->tries + 1);
        assert_int_equal(claims[i].is_alone, is_alone);
        struct held *h = &held[n_held++];
        *h = (struct held){claims[i], k, p->id, p->holder, p->version, worker};
        h->claim.key = view_of_string(keys[k]);
        h->claim.drugs = VIEW("[{\"drug\":\"drugex\",\"name\":\"Drugex\"}]");
    }
    arena_clear(&f->arena);
}

static void settle_both(struct fixture *f) {
    if (n_held == 0)
        return;
    size_t at = below((uint32_t)n_held);
    struct held h = held[at];
    held[at] = held[--n_held];
    enum store_outcome_kind kind =
        below(2) ? STORE_DONE : (enum store_outcome_kind)below(4);
    struct post *p = &m.posts[h.k];
    bool holds = p->id == h.id && p->is_queued && p->holder == h.holder &&
                 p->version == h.version;
    bool is_last = h.claim.tries == STORE_MAX_TRIES;
    assert_int_equal(settle_one(f, h.worker, &h.claim, kind), !holds);
    if (!holds)
        return;
    if (kind == STORE_DONE) {
        model_finish(h.k);
    } else if (kind == STORE_GIVE_UP || (kind == STORE_RETRY && is_last)) {
        p->is_queued = false;
        m.is_dead[h.k] = true;
    } else {
        p->is_free = true;
        p->holder = p->worker = 0;
        p->tries += kind == STORE_RETRY;
        p->lapses = kind == STORE_RETRY ? 0 : p->lapses;
    }
}

static void dead_both(struct fixture *f) {
    int64_t n;
    bool drops = below(2);
    assert_ok(drops ? store_dead_drop(f->store, 0, "t", &n, &error)
                    : store_dead_retry(f->store, 0, "t", &n, &error));
    for (int k = 0; k < N_KEYS; k++) {
        if (!m.is_dead[k])
            continue;
        n--;
        m.is_dead[k] = false;
        if (drops && is_aggregate(k)) {
            m.is_seen[k] = true;
            model_remove(k);
        } else if (!drops) {
            m.posts[k].is_queued = m.posts[k].is_free = true;
            m.posts[k].tries = m.posts[k].lapses = m.posts[k].worker = 0;
        }
    }
    assert_int_equal(n, 0);
}

static int count_bits(unsigned bits) {
    return __builtin_popcount(bits);
}

static int count_true(const bool flags[N_KEYS]) {
    int n = 0;
    for (int k = 0; k < N_KEYS; k++)
        n += flags[k];
    return n;
}

static void compare_posts(struct fixture *f) {
    static const char sql[] =
        "SELECT p.key, p.version, p.n_reposts, p.n_quotes, p.n_duplicates, "
        "COALESCE(q.tries, -1), COALESCE(q.version, -1), "
        "(SELECT count(*) FROM results r WHERE r.post_id = p.id), p.text "
        "FROM posts p LEFT JOIN queue q ON q.post_id = p.id AND q.model = '' "
        "ORDER BY p.id";
    struct statement *st;
    assert_ok(database_prepare(store_database(f->store), sql, &st, &error));
    for (int id = 1; id <= m.last_id; id++) {
        int k = key_of(id);
        if (k < 0)
            continue;
        const struct post *p = &m.posts[k];
        bool has_row;
        char text[64];
        assert_ok(statement_step(st, &has_row, &error));
        assert_true(has_row);
        assert_true(view_equal(statement_get_text(st, 0), view_of_string(keys[k])));
        assert_int_equal(statement_get_integer(st, 1), p->version);
        for (int kind = STORE_REPOST; kind <= STORE_DUPLICATE; kind++)
            assert_int_equal(statement_get_integer(st, 1 + kind), p->n_folds[kind]);
        assert_int_equal(statement_get_integer(st, 5), p->is_queued ? p->tries : -1);
        assert_int_equal(statement_get_integer(st, 6), p->is_queued ? p->version : -1);
        assert_int_equal(statement_get_integer(st, 7), count_bits(p->results));
        write_text(text, k, p->version);
        assert_true(view_equal(statement_get_text(st, 8), view_of_string(text)));
    }
    bool has_row;
    assert_ok(statement_step(st, &has_row, &error));
    assert_false(has_row);
}

static void compare(struct fixture *f) {
    int n_queued = 0, n_folds = 0, n_mentioned = 0;
    compare_posts(f);
    for (int k = 0; k < N_KEYS; k++) {
        const struct post *p = &m.posts[k];
        n_queued += p->id > 0 && p->is_queued;
        n_folds += m.folds[k].kind > 0;
        n_mentioned += p->id > 0 && (p->results >> p->version & 1);
    }
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), n_queued);
    assert_int_equal(number(f, "SELECT count(*) FROM folds"), n_folds);
    assert_int_equal(number(f, "SELECT count(*) FROM mentions"), n_mentioned);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"),
                     count_true(m.is_dead));
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"),
                     count_true(m.is_tombstone));
    assert_int_equal(number(f, "SELECT count(*) FROM seen"), count_true(m.is_seen));
    assert_int_equal(number(f, "SELECT COALESCE(sum(n_posts), 0) FROM aggregates"),
                     m.n_counted);
    assert_int_equal(number(f, "SELECT COALESCE(sum(n_reposts + n_quotes + "
                               "n_duplicates), 0) FROM aggregates"),
                     m.n_folds_counted);
}

/* Tombstones and what is seen would end every game: a fresh one now and then. */
static void begin_game(struct fixture *f) {
    static const char wipe[] =
        "DELETE FROM mentions; DELETE FROM results; DELETE FROM queue; "
        "DELETE FROM posts; DELETE FROM folds; DELETE FROM tombstones; "
        "DELETE FROM seen; DELETE FROM aggregates; DELETE FROM dead_letters";
    fixture_run(f->store, wipe);
    memset(&m, 0, sizeof m);
    n_held = 0;
}

static void test_model(void **state) {
    struct fixture *f = *state;
    const char *given = getenv("VIGIL_TEST_SEED");
    seed = given ? strtoull(given, NULL, 10) : 5640;
    for (int k = 0; k < N_KEYS; k++)
        snprintf(keys[k], sizeof keys[k], "file:%d", k);
    int n_games = f->is_postgres ? 6 : 30;
    for (int game = 0; game < n_games; game++) {
        begin_game(f);
        for (int step = 0; step < 150; step++) {
            uint32_t what = below(100);
            if (what < 35)
                take_both(f);
            else if (what < 60)
                claim_both(f);
            else if (what < 94)
                settle_both(f);
            else if (what < 98)
                dead_both(f);
            else if (what < 99 || !f->is_postgres)
                fixture_reopen(f);
            if (step % 5 == 0)
                compare(f);
        }
        compare(f);
    }
    int64_t n;
    assert_ok(store_audit_check(f->store, &n, &error));
}

/* ---- Several at the same time ---- */

#define N_POSTS 300
#define BATCH 10

struct worker {
    struct store *store;
    const char *name;
    atomic_bool *is_fed;
    uint64_t seed;
    size_t n_done, n_lost;
    enum status status;
    struct error error;
};

static enum status work_once(struct worker *w, struct arena *arena, size_t *n) {
    struct store_claim claims[8];
    struct store_outcome outcomes[8];
    size_t n_lost;
    arena_clear(arena);
    enum status status =
        store_claim(w->store, w->name, "", LONG_NS, arena, claims, 8, n, &w->error);
    if (status != STATUS_OK || *n == 0)
        return status;
    for (size_t i = 0; i < *n; i++) {
        w->seed = w->seed * UINT64_C(6364136223846793005) + 1;
        outcomes[i] =
            an_outcome(&claims[i], w->seed >> 60 < 4 ? STORE_RELEASE : STORE_DONE);
        w->n_done += outcomes[i].kind == STORE_DONE;
    }
    status = store_settle(w->store, w->name, outcomes, *n, &n_lost, &w->error);
    w->n_lost += n_lost;
    return status;
}

static void *work(void *context) {
    struct worker *w = context;
    struct arena arena = {.max_bytes = (size_t)1 << 20};
    size_t n = 1;
    while (w->status == STATUS_OK) {
        bool was_fed = atomic_load(w->is_fed);
        w->status = work_once(w, &arena, &n);
        if (was_fed && n == 0)
            break;
    }
    arena_free(&arena);
    return NULL;
}

/* Each post twice, every tenth in a newer version, every seventh deleted. */
static enum status feed(struct store *s, int first, bool is_again, struct error *err) {
    char names[3 * BATCH][24];
    struct store_item items[3 * BATCH];
    size_t n = 0;
    for (int i = first; i < first + BATCH; i++) {
        snprintf(names[n], sizeof names[n], "file:%d", i);
        items[n] = an_item(names[n], is_again && i % 10 == 0 ? 2 : 1, "words");
        n++;
        if (is_again && i % 7 == 0) {
            snprintf(names[n], sizeof names[n], "file:%d", i);
            items[n] = a_delete(names[n]);
            n++;
        }
        if (is_again && i % 3 == 0) {
            snprintf(names[n], sizeof names[n], "file:r%d", i);
            items[n] =
                a_fold(STORE_REPOST, names[n], i % 2 ? "file:1" : "file:2", 1, "");
            n++;
        }
    }
    struct store_take_in what = {.source = "file", .items = items, .n_items = n};
    struct store_taken taken = {0};
    return store_take_in(s, &what, &taken, err);
}

static void test_together(void **state) {
    struct fixture *f = *state;
    struct store *second;
    atomic_bool is_fed = false;
    pthread_t threads[3];
    assert_ok(store_open(f->at.url, DATABASE_WRITE, &second, &error));
    struct worker workers[3] = {{.store = f->store, .name = "a", .seed = 1},
                                {.store = second, .name = "b", .seed = 2},
                                {.store = second, .name = "c", .seed = 3}};
    for (size_t i = 0; i < 3; i++) {
        workers[i].is_fed = &is_fed;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    enum status status = STATUS_OK;
    for (int i = 0; status == STATUS_OK && i < N_POSTS; i += BATCH) {
        status = feed(f->store, i, false, &error);
        if (status == STATUS_OK && i > 0)
            status = feed(f->store, i - BATCH, true, &error);
    }
    if (status == STATUS_OK)
        status = feed(f->store, N_POSTS - BATCH, true, &error);
    atomic_store(&is_fed, true);
    size_t n_done = 0, n_lost = 0;
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        n_done += workers[i].n_done;
        n_lost += workers[i].n_lost;
    }
    fixture_ok(status, &error, "feed", __FILE__, __LINE__);
    for (size_t i = 0; i < 3; i++)
        fixture_ok(workers[i].status, &workers[i].error, "work", __FILE__, __LINE__);
    store_close(second);
    /* What a worker released last may lie there still. */
    n_done += settle_all(f);
    int n_deleted = 0, n_newer = 0, n_folds = 0;
    for (int i = 0; i < N_POSTS; i++) {
        n_deleted += i % 7 == 0;
        n_newer += i % 10 == 0 && i % 7 != 0;
        n_folds += i % 3 == 0;
    }
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), N_POSTS - n_deleted);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results_latest"),
                     N_POSTS - n_deleted);
    assert_int_equal(number(f, "SELECT count(*) FROM posts WHERE version = 2"),
                     n_newer);
    assert_int_equal(number(f, "SELECT sum(n_reposts) FROM posts"), n_folds);
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), n_deleted);
    int64_t n_results = number(f, "SELECT count(*) FROM results");
    assert_true(n_done - n_lost >= (size_t)n_results); /* of deleted posts they went */
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 0);
}

/* ---- Sources that speak of the same posts at the same time ---- */

#define N_ROUNDS 40

struct source {
    struct store *store;
    pthread_barrier_t *barrier;
    struct store_item (*item_of)(const char *key, const char *fold_key);
    enum status status;
    struct error error;
};

static struct store_item say(const char *key, const char *fold_key) {
    (void)fold_key;
    return an_item(key, 1, "words");
}

static struct store_item withdraw(const char *key, const char *fold_key) {
    (void)fold_key;
    return a_delete(key);
}

static struct store_item repost(const char *key, const char *fold_key) {
    return a_fold(STORE_REPOST, fold_key, key, 1, "");
}

static void *speak(void *context) {
    struct source *source = context;
    for (int round = 0; round < N_ROUNDS; round++) {
        struct store_item items[BATCH];
        char names[BATCH][24], folds[BATCH][24];
        for (int i = 0; i < BATCH; i++) {
            bool is_withdrawn = source->item_of == withdraw;
            bool is_reposted = source->item_of == repost;
            int n = (round * BATCH + i) & ~1;
            snprintf(names[i], sizeof names[i], "file:%d",
                     is_withdrawn  ? n
                     : is_reposted ? n + 1
                                   : round * BATCH + i);
            snprintf(folds[i], sizeof folds[i], "file:r%d", n);
            items[i] = source->item_of(names[i], folds[i]);
        }
        struct store_take_in what = {
            .source = "file", .items = items, .n_items = BATCH};
        struct store_taken taken = {0};
        pthread_barrier_wait(source->barrier);
        if (source->status == STATUS_OK)
            source->status =
                store_take_in(source->store, &what, &taken, &source->error);
    }
    return NULL;
}

/* Whoever comes first: what is withdrawn is not there, what is reposted is counted. */
static void test_sources_together(void **state) {
    struct fixture *f = *state;
    pthread_barrier_t barrier;
    pthread_t threads[3];
    struct source sources[3] = {
        {.item_of = say}, {.item_of = withdraw}, {.item_of = repost}};
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 3), 0);
    for (size_t i = 0; i < 3; i++) {
        sources[i].barrier = &barrier;
        assert_ok(store_open(f->at.url, DATABASE_WRITE, &sources[i].store, &error));
    }
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, speak, &sources[i]), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 3; i++) {
        fixture_ok(sources[i].status, &sources[i].error, "speak", __FILE__, __LINE__);
        store_close(sources[i].store);
    }
    pthread_barrier_destroy(&barrier);
    int n_each = N_ROUNDS * BATCH / 2;
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), n_each);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), n_each);
    assert_int_equal(number(f, "SELECT count(*) FROM posts WHERE n_reposts = 1"),
                     n_each);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), n_each);
    assert_int_equal(number(f, "SELECT count(*) FROM folds WHERE post_id > 0"), n_each);
}

int main(void) {
    static const struct fixture_case cases[] = {
        CASE(test_model),
        CASE(test_together),
        CASE(test_sources_together),
    };
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
