/* SPDX-License-Identifier: Apache-2.0
 *
 * test_queue.c - store/queue against a real server, where VIGIL_TEST_NATS=nats://host:port
 * names one (tests/e2e/test_nats.py starts it); what needs none otherwise.
 *
 * As a program of its own it plays a part in the tests of a cluster:
 *   test_queue publish URL FIRST N BATCH OUT     appends the key of each post acknowledged;
 *                                                at most 1,000/s, until there is OUT.stop,
 *                                                when N is 0
 *   test_queue consume URL CONSUMER DONE OUT     appends the key of each post settled, until
 *                                                the file DONE is there and nothing waits
 *   test_queue erase URL SOURCE AUTHOR KEY       "-": any; prints how many
 *   test_queue check URL                         prints what `vigil doctor` would know
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/queue/queue.h"
#include "store/queue/queue_url.h"

#define SECOND CLOCK_NS_PER_SECOND
#define MS (SECOND / 1000)

static void nap(int64_t ns) {
    struct timespec t = {.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};
    nanosleep(&t, NULL);
}

/* ---- the parts of a test of a cluster ---- */

struct texts {
    char key[64], author[64], text[128], fold_key[64];
};

static struct store_item post_of(int64_t i, struct texts *t) {
    snprintf(t->key, sizeof t->key, "test:%" PRId64, i);
    snprintf(t->author, sizeof t->author, "author-%" PRId64, i % 7);
    snprintf(t->text, sizeof t->text, "MARKED-TEXT-%" PRId64 " made me dizzy", i);
    return (struct store_item){.kind = STORE_POST,
                               .source = VIEW("test"),
                               .key = view_of_string(t->key),
                               .version = 1,
                               .author = view_of_string(t->author),
                               .text = view_of_string(t->text),
                               .received_ns = i + 1};
}

static int complain(const struct error *err) {
    fprintf(stderr, "test_queue: %s\n", err->message);
    return 1;
}

static int publish(char **argv) {
    struct error err = {0};
    struct queue *q = NULL;
    struct queue_options o = {.url = argv[0]};
    int64_t first = strtoll(argv[1], NULL, 10), n = strtoll(argv[2], NULL, 10);
    size_t n_batch = strtoul(argv[3], NULL, 10);
    struct store_item *items = calloc(n_batch, sizeof *items);
    struct texts *texts = calloc(n_batch, sizeof *texts);
    FILE *out = fopen(argv[4], "a");
    if (!out || !items || !texts || queue_open(&o, &q, &err) != STATUS_OK)
        return complain(&err);
    int64_t start_ns = clock_now_ns();
    char stop[256];
    snprintf(stop, sizeof stop, "%s.stop", argv[4]);
    bool is_paced = n == 0;
    for (int64_t at = 0; is_paced ? access(stop, F_OK) != 0 : at < n;
         at += (int64_t)n_batch) {
        size_t k = 0;
        if (is_paced)
            nap((int64_t)n_batch * MS);
        for (; k < n_batch && (is_paced || at + (int64_t)k < n); k++)
            items[k] = post_of(first + at + (int64_t)k, &texts[k]);
        if (queue_publish(q, items, k, &err) != STATUS_OK)
            return complain(&err);
        for (size_t i = 0; i < k; i++)
            fprintf(out, "%s\n", texts[i].key);
        fflush(out);
    }
    printf("%.0f\n", (double)n * 1e9 / (double)(clock_now_ns() - start_ns));
    fclose(out);
    free(items);
    free(texts);
    queue_close(q);
    return 0;
}

static int consume(char **argv) {
    struct error err = {0};
    struct queue *q = NULL;
    struct queue_options o = {
        .url = argv[0], .consumer = argv[1], .ack_wait_ns = 5 * SECOND};
    static struct queue_delivery d[256];
    static struct queue_message *m[256];
    struct arena arena = {.max_bytes = 64 << 20};
    FILE *out = fopen(argv[3], "a");
    if (!out || queue_open(&o, &q, &err) != STATUS_OK)
        return complain(&err);
    int64_t n_all = 0, start_ns = 0;
    for (int n_empty = 0; n_empty < 3;) {
        size_t n = 0;
        arena_clear(&arena);
        if (queue_fetch(q, SECOND, &arena, d, 256, &n, &err) != STATUS_OK)
            return complain(&err);
        if (n > 0 && start_ns == 0)
            start_ns = clock_now_ns();
        for (size_t i = 0; i < n; i++) {
            m[i] = d[i].message;
            fprintf(out, "%.*s\n", (int)d[i].item.key.n_bytes, d[i].item.key.data);
        }
        fflush(out); /* the store's commit, before the acknowledgement */
        if (queue_ack_all(q, m, n, &err) != STATUS_OK)
            fprintf(stderr, "%s\n", err.message); /* it comes again */
        n_all += (int64_t)n;
        if (n > 0) {
            n_empty = 0;
            continue;
        }
        /* Consumers that end in an outage look like loss: wait for the publisher's end,
         * and until the server says that nothing waits or is under way. */
        struct queue_lag lag;
        bool is_done = access(argv[2], F_OK) == 0 &&
                       queue_lag(q, &lag, NULL) == STATUS_OK && lag.n_waiting == 0 &&
                       lag.n_in_flight == 0;
        n_empty = is_done ? n_empty + 1 : 0;
    }
    int64_t ns = clock_now_ns() - start_ns - 3 * SECOND;
    printf("%.0f\n", (double)n_all * 1e9 / (double)(ns > 0 ? ns : 1));
    fclose(out);
    arena_free(&arena);
    queue_close(q);
    return 0;
}

static const char *or_any(const char *text) {
    return strcmp(text, "-") == 0 ? NULL : text;
}

static int erase(char **argv) {
    struct error err = {0};
    struct queue *q = NULL;
    struct queue_options o = {.url = argv[0]};
    int64_t n = 0;
    if (queue_open(&o, &q, &err) != STATUS_OK ||
        queue_erase(q, or_any(argv[1]), or_any(argv[2]), or_any(argv[3]), &n, &err) !=
            STATUS_OK)
        return complain(&err);
    printf("%" PRId64 "\n", n);
    queue_close(q);
    return 0;
}

static int check(char **argv) {
    struct error err = {0};
    struct queue_facts f;
    if (queue_check(argv[0], &f, &err) != STATUS_OK)
        return complain(&err);
    printf("%s|%d|%d|%d|%d|%d|%s\n", f.version, f.has_jetstream, f.is_cluster, f.is_old,
           f.is_sync_known, f.is_sync_always, f.warning);
    return 0;
}

/* ---- without a server ---- */

static void reads_urls(void **state) {
    (void)state;
    struct queue_url u;
    assert_int_equal(queue_url_parse("nats://localhost", &u, NULL), STATUS_OK);
    assert_string_equal(u.servers[0].url, "nats://localhost:4222");
    assert_string_equal(u.name, "nats://localhost:4222/VIGIL");
    assert_int_equal(u.age_ns, 30 * 86400 * SECOND);
    assert_int_equal(
        queue_url_parse("tls://me%40x:p%3aw:d@a:1,[::1]:2,c/POSTS?replicas=3&age=12h"
                        "&max_bytes=1000&creds=%2ftmp/x&ca=/ca&monitor=m:9",
                        &u, NULL),
        STATUS_OK);
    assert_true(u.is_tls);
    assert_string_equal(u.user, "me@x");
    assert_string_equal(u.password, "p:w:d");
    assert_int_equal(u.n_servers, 3);
    assert_string_equal(u.servers[1].host, "::1");
    assert_string_equal(u.servers[1].url, "nats://[::1]:2");
    assert_string_equal(u.servers[2].port, "4222");
    assert_string_equal(u.stream, "POSTS");
    assert_string_equal(u.creds, "/tmp/x");
    assert_string_equal(u.ca, "/ca");
    assert_string_equal(u.monitor_host, "m");
    assert_string_equal(u.monitor_port, "9");
    assert_int_equal(u.n_replicas, 3);
    assert_int_equal(u.age_ns, 12 * 3600 * SECOND);
    assert_int_equal(u.max_bytes, 1000);
    assert_string_equal(u.name, "tls://a:1,[::1]:2,c:4222/POSTS");
    assert_int_equal(queue_url_parse("nats://t0ken@h/", &u, NULL), STATUS_OK);
    assert_string_equal(u.token, "t0ken");
    assert_string_equal(u.stream, "VIGIL");
    assert_int_equal(queue_url_parse("nats://h?age=0", &u, NULL), STATUS_OK);
    assert_int_equal(u.age_ns, 0);
}

/* What is wrong is said without the secret that stands beside it. */
static void refuses_urls(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "http://SECRET@h",
        "nats://",
        "nats://u:SECRET@",
        "nats://u:SECRET@h:0",
        "nats://u:SECRET@h:65536",
        "nats://u:SECRET@h:12a",
        "nats://u:SECRET@h,",
        "nats://u:SECRET@[::1",
        "nats://u:SECRET@[::1]x",
        "nats://u:SECRET@h/a.b",
        "nats://u:SECRET@h/a>",
        "nats://u:SECRET@h/abcdefghijklmnopqrstuvwxyz0123456",
        "nats://u:%SECRET@h",
        "nats://u:SECRET%4@h",
        "nats://u:SECRET%00@h",
        "nats://u:SECRET@h?replicas=0",
        "nats://u:SECRET@h?replicas=6",
        "nats://u:SECRET@h?replicas=",
        "nats://u:SECRET@h?age=3w",
        "nats://u:SECRET@h?age=99999999d",
        "nats://u:SECRET@h?age=1dd",
        "nats://u:SECRET@h?max_bytes=0",
        "nats://u:SECRET@h?creds=",
        "nats://u:SECRET@h?SECRET=1",
        "nats://u:SECRET@h?replicas",
        "nats://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"};
    struct queue *q = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error err = {0};
        struct queue_options o = {.url = bad[i]};
        if (queue_open(&o, &q, &err) != STATUS_INVALID)
            fail_msg("took %s", bad[i]);
        assert_null(strstr(err.message, "SECRET"));
        assert_null(q);
    }
    struct queue_options o = {.url = "nats://h", .consumer = "a.b"};
    assert_int_equal(queue_open(&o, &q, NULL), STATUS_INVALID);
    queue_close(NULL);
}

/* ---- with a server ---- */

static const char *server;

struct fixture {
    struct queue *q;
    struct arena arena;
    struct queue_delivery d[64];
    size_t n;
    char url[256];
};

static struct queue *open_queue(const char *url, const char *consumer,
                                int64_t ack_wait_ns, int64_t since_ns) {
    struct error err = {0};
    struct queue *q = NULL;
    struct queue_options o = {.url = url,
                              .consumer = consumer,
                              .ack_wait_ns = ack_wait_ns,
                              .since_ns = since_ns,
                              .publish_wait_ns = 20 * SECOND};
    if (queue_open(&o, &q, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return q;
}

static struct fixture *open_fixture(int64_t ack_wait_ns, const char *options) {
    static int n_streams;
    struct fixture *f = calloc(1, sizeof *f);
    f->arena.max_bytes = 16 << 20;
    snprintf(f->url, sizeof f->url, "%s/T%d_%d%s", server, (int)getpid(), n_streams++,
             options);
    f->q = open_queue(f->url, NULL, ack_wait_ns, 0);
    return f;
}

/* Another worker on the same stream. */
static struct fixture *open_other(const struct fixture *f, const char *consumer,
                                  int64_t since_ns) {
    struct fixture *other = calloc(1, sizeof *other);
    other->arena.max_bytes = 1 << 20;
    other->q = open_queue(f->url, consumer, 0, since_ns);
    return other;
}

static void close_fixture(struct fixture *f) {
    queue_close(f->q);
    arena_free(&f->arena);
    free(f);
}

static void publish_posts(struct fixture *f, int64_t first, size_t n) {
    static struct store_item items[64];
    static struct texts texts[64];
    struct error err = {0};
    for (size_t i = 0; i < n; i++)
        items[i] = post_of(first + (int64_t)i, &texts[i]);
    if (queue_publish(f->q, items, n, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static size_t fetch(struct fixture *f, int64_t wait_ns) {
    struct error err = {0};
    arena_clear(&f->arena);
    if (queue_fetch(f->q, wait_ns, &f->arena, f->d, 64, &f->n, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return f->n;
}

/* Fetches until n came in all, however they are parted, and acknowledges them. */
static void take(struct fixture *f, size_t n) {
    for (size_t got = 0; got < n; got += f->n) {
        if (fetch(f, 20 * SECOND) == 0)
            fail_msg("%zu of %zu came", got, n);
        for (size_t i = 0; i < f->n; i++)
            assert_int_equal(queue_ack(f->q, f->d[i].message, NULL), STATUS_OK);
    }
}

static struct queue_lag lag_of(struct fixture *f) {
    struct queue_lag lag;
    struct error err = {0};
    if (queue_lag(f->q, &lag, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return lag;
}

/* What is published twice comes once; kinds, versions and folds are told apart. */
static void drops_repeats(void **state) {
    (void)state;
    struct fixture *f = open_fixture(0, "");
    struct texts t;
    struct store_item items[5];
    for (size_t i = 0; i < 5; i++)
        items[i] = post_of(1, &t);
    items[1].version = 2;
    items[2].kind = STORE_DELETE;
    items[3].fold = items[4].fold = STORE_REPOST;
    items[3].fold_key = VIEW("test:a");
    items[4].fold_key = VIEW("test:b");
    assert_int_equal(lag_of(f).n_waiting, 0);
    for (int k = 0; k < 2; k++)
        assert_int_equal(queue_publish(f->q, items, 5, NULL), STATUS_OK);
    assert_int_equal(lag_of(f).n_waiting, 5);
    take(f, 5);
    assert_int_equal(fetch(f, 200 * MS), 0);
    struct queue_lag lag = lag_of(f);
    assert_int_equal(lag.n_waiting, 0);
    assert_int_equal(lag.n_in_flight, 0);
    assert_int_equal(lag.n_dead, 0);
    assert_int_equal(queue_publish(f->q, items, 0, NULL), STATUS_OK);
    assert_true(queue_is_connected(f->q));
    assert_null(strstr(queue_name(f->q), "@"));
    close_fixture(f);
}

/* What comes is what was sent. */
static void carries_items(void **state) {
    (void)state;
    struct fixture *f = open_fixture(0, "");
    static char body[QUEUE_BODY_BYTES + 100];
    memset(body, 0xFE, sizeof body);
    struct texts t;
    struct store_item items[2] = {post_of(1, &t), post_of(2, &t)};
    items[1] = (struct store_item){.kind = STORE_DEAD,
                                   .source = VIEW("te st.*>"),
                                   .body = view_of(body, sizeof body),
                                   .reason = VIEW("no JSON"),
                                   .stage = VIEW("parse")};
    assert_int_equal(queue_publish(f->q, items, 2, NULL), STATUS_OK);
    size_t n = fetch(f, 10 * SECOND);
    assert_int_equal(n, 2);
    assert_int_equal(f->d[0].item.kind, STORE_POST);
    assert_int_equal(f->d[0].tries, 1);
    assert_true(view_equal(f->d[1].item.source, items[1].source));
    assert_int_equal(f->d[1].item.kind, STORE_DEAD);
    assert_int_equal(f->d[1].item.body.n_bytes, QUEUE_BODY_BYTES); /* cut */
    assert_memory_equal(f->d[1].item.body.data, body, QUEUE_BODY_BYTES);
    struct queue_message *m[2] = {f->d[0].message, f->d[1].message};
    assert_int_equal(queue_ack_all(f->q, m, 2, NULL), STATUS_OK);
    /* Too large for the server: nothing of the batch is sent. */
    static char text[1100000];
    memset(text, 'x', sizeof text);
    items[0] = post_of(3, &t);
    items[1] = post_of(4, &t);
    items[1].text = view_of(text, sizeof text);
    struct error err = {0};
    assert_int_equal(queue_publish(f->q, items, 2, &err), STATUS_LIMIT);
    assert_null(strstr(err.message, "xx"));
    assert_int_equal(lag_of(f).n_waiting, 0);
    close_fixture(f);
}

static void comes_again_without_ack(void **state) {
    (void)state;
    struct fixture *f = open_fixture(SECOND, "");
    publish_posts(f, 1, 2);
    assert_int_equal(fetch(f, 10 * SECOND), 2);
    struct queue_message *forgotten = f->d[0].message, *kept = f->d[1].message;
    for (int i = 0; i < 6; i++) { /* 1.8 s, past the wait of 1 s */
        queue_extend(f->q, kept);
        nap(300 * MS);
    }
    assert_int_equal(fetch(f, 10 * SECOND), 1);
    assert_int_equal(f->d[0].tries, 2);
    assert_int_equal(f->d[0].item.received_ns, 2); /* post 1, not the one kept */
    assert_int_equal(queue_ack(f->q, f->d[0].message, NULL), STATUS_OK);
    assert_int_equal(queue_ack(f->q, kept, NULL), STATUS_OK);
    /* The first delivery can be settled too: the server knows it is done. */
    assert_int_equal(queue_ack(f->q, forgotten, NULL), STATUS_OK);
    struct error err = {0};
    assert_int_equal(queue_ack(f->q, forgotten, &err), STATUS_INTERNAL);
    assert_int_equal(queue_give_up(f->q, forgotten, "", NULL), STATUS_INTERNAL);
    queue_retry(f->q, forgotten, 0);
    queue_release(f->q, forgotten);
    queue_extend(f->q, forgotten);
    assert_int_equal(fetch(f, 1500 * MS), 0);
    close_fixture(f);
}

static void retries_later(void **state) {
    (void)state;
    struct fixture *f = open_fixture(60 * SECOND, "");
    publish_posts(f, 1, 1);
    assert_int_equal(fetch(f, 10 * SECOND), 1);
    int64_t start_ns = clock_now_ns();
    queue_retry(f->q, f->d[0].message, 0); /* 1 s at least */
    assert_int_equal(fetch(f, 30 * SECOND), 1);
    assert_true(clock_now_ns() - start_ns >= 900 * MS);
    assert_int_equal(f->d[0].tries, 2);
    queue_release(f->q, f->d[0].message); /* at once */
    assert_int_equal(fetch(f, 30 * SECOND), 1);
    assert_int_equal(f->d[0].tries, 3);
    for (int i = 4; i <= 5; i++) {
        queue_release(f->q, f->d[0].message);
        assert_int_equal(fetch(f, 30 * SECOND), 1);
        assert_int_equal(f->d[0].tries, i);
    }
    queue_release(f->q, f->d[0].message); /* never the last: it begins anew */
    assert_int_equal(fetch(f, 30 * SECOND), 1);
    assert_int_equal(f->d[0].tries, 1);
    assert_int_equal(lag_of(f).n_dead, 0);
    for (int i = 2; i <= 5; i++) {
        queue_release(f->q, f->d[0].message);
        assert_int_equal(fetch(f, 30 * SECOND), 1);
    }
    queue_retry(f->q, f->d[0].message, 0); /* the last: a dead letter */
    assert_int_equal(fetch(f, 500 * MS), 0);
    assert_int_equal(lag_of(f).n_dead, 1);
    assert_int_equal(lag_of(f).n_in_flight, 0);
    close_fixture(f);
}

static void gives_up(void **state) {
    (void)state;
    struct fixture *f = open_fixture(SECOND, "");
    publish_posts(f, 1, 3);
    assert_int_equal(fetch(f, 10 * SECOND), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(
            queue_give_up(f->q, f->d[i].message, "server: 422\r\ntoo_long", NULL),
            STATUS_OK);
    assert_int_equal(fetch(f, 1500 * MS), 0);
    assert_int_equal(lag_of(f).n_dead, 3);
    int64_t n = 0;
    assert_int_equal(queue_erase(f->q, NULL, NULL, "test:2", &n, NULL), STATUS_OK);
    assert_int_equal(n, 2); /* the post and its dead letter */
    assert_int_equal(lag_of(f).n_dead, 2);
    close_fixture(f);
}

/* Each try ends without a word, as when the worker dies of it: the server's advisory makes
 * a dead letter of it all the same. */
static void buries_what_ends_silently(void **state) {
    (void)state;
    struct fixture *f = open_fixture(SECOND, "");
    publish_posts(f, 1, 1);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(fetch(f, 20 * SECOND), 1);
        assert_int_equal(f->d[0].tries, i);
    }
    for (int i = 0; i < 30 && lag_of(f).n_dead == 0; i++)
        assert_int_equal(fetch(f, SECOND), 0);
    assert_int_equal(lag_of(f).n_dead, 1);
    close_fixture(f);
}

/* A consumer of another name goes over the same posts, from a moment on. */
static void begins_at_a_moment(void **state) {
    (void)state;
    struct fixture *f = open_fixture(0, "");
    publish_posts(f, 1, 5);
    take(f, 5);
    nap(50 * MS);
    int64_t since_ns = clock_wall_ns();
    nap(50 * MS);
    publish_posts(f, 6, 3);
    take(f, 3);
    struct fixture *all = open_other(f, "all", 0);
    struct fixture *some = open_other(f, "some", since_ns);
    take(all, 8);
    assert_int_equal(fetch(all, 100 * MS), 0);
    take(some, 3);
    assert_int_equal(fetch(some, 100 * MS), 0);
    close_fixture(all);
    close_fixture(some);
    close_fixture(f);
}

/* Two workers share a consumer: each post to one of them. */
static void shares(void **state) {
    (void)state;
    struct fixture *f = open_fixture(0, ""), *other = open_other(f, NULL, 0);
    publish_posts(f, 1, 60);
    arena_clear(&f->arena);
    assert_int_equal(queue_fetch(f->q, SECOND, &f->arena, f->d, 25, &f->n, NULL),
                     STATUS_OK);
    assert_int_equal(f->n, 25);
    assert_int_equal(fetch(other, SECOND), 35);
    assert_int_equal(lag_of(f).n_in_flight, 60);
    for (size_t i = 0; i < 25; i++)
        assert_int_equal(queue_ack(f->q, f->d[i].message, NULL), STATUS_OK);
    for (size_t i = 0; i < 35; i++)
        assert_int_equal(queue_ack(other->q, other->d[i].message, NULL), STATUS_OK);
    assert_int_equal(lag_of(f).n_in_flight, 0);
    close_fixture(other);
    close_fixture(f);
}

static void erases(void **state) {
    (void)state;
    struct fixture *f = open_fixture(0, "");
    publish_posts(f, 1, 56); /* of 7 authors */
    struct texts t;
    struct store_item items[3] = {post_of(100, &t), post_of(100, &t), post_of(100, &t)};
    items[0].source = VIEW("te.st"); /* no source that looks alike */
    items[0].key = VIEW("te.st:1");
    items[1].source = VIEW("te");
    items[1].key = VIEW("te:1");
    items[2].fold = STORE_REPOST;
    items[2].key = VIEW("test:1");
    items[2].fold_key = VIEW("test:repost");
    items[2].author = VIEW("reposter");
    assert_int_equal(queue_publish(f->q, items, 3, NULL), STATUS_OK);
    int64_t n = 0;
    assert_int_equal(queue_erase(f->q, NULL, "author-3", NULL, &n, NULL), STATUS_OK);
    assert_int_equal(n, 8);
    assert_int_equal(queue_erase(f->q, NULL, NULL, "test:1", &n, NULL), STATUS_OK);
    assert_int_equal(n, 2); /* the post, and the repost that names it */
    assert_int_equal(queue_erase(f->q, NULL, NULL, "test:1", &n, NULL), STATUS_OK);
    assert_int_equal(n, 0);
    assert_int_equal(queue_publish(f->q, items + 2, 1, NULL), STATUS_OK);
    assert_int_equal(queue_erase(f->q, "te.st", NULL, NULL, &n, NULL), STATUS_OK);
    assert_int_equal(n, 1);
    assert_int_equal(queue_erase(f->q, "test", NULL, NULL, &n, NULL), STATUS_OK);
    assert_int_equal(n, 47);
    assert_int_equal(fetch(f, 5 * SECOND), 1); /* "te" */
    assert_true(view_equal(f->d[0].item.key, VIEW("te:1")));
    assert_int_equal(queue_erase(f->q, NULL, NULL, NULL, &n, NULL), STATUS_OK);
    assert_int_equal(n, 1);
    assert_int_equal(queue_ack(f->q, f->d[0].message, NULL), STATUS_OK);
    close_fixture(f);
}

/* Messages that somebody else wrote there become dead letters, not crashes; a stream that is
 * full refuses. */
static void refuses_when_full(void **state) {
    (void)state;
    struct fixture *f = open_fixture(0, "?max_bytes=20000&age=1h&replicas=1");
    struct queue_options o = {.url = f->url, .publish_wait_ns = SECOND};
    struct queue *q = NULL;
    struct error err = {0};
    assert_int_equal(queue_open(&o, &q, &err), STATUS_OK);
    enum status status = STATUS_OK;
    struct texts t;
    for (int64_t i = 0; i < 500 && status == STATUS_OK; i++) {
        struct store_item item = post_of(i, &t);
        status = queue_publish(q, &item, 1, &err);
    }
    assert_int_equal(status, STATUS_IO);
    assert_non_null(strstr(err.message, "1 of 1 open"));
    assert_null(strstr(err.message, "MARKED"));
    assert_true(lag_of(f).n_waiting > 10); /* the first are there still */
    queue_close(q);
    close_fixture(f);
}

/* An arena that is too small gives back what it could not hold. */
static void gives_back_what_has_no_room(void **state) {
    (void)state;
    struct fixture *f = open_fixture(60 * SECOND, "");
    publish_posts(f, 1, 40);
    struct arena small = {.max_bytes = 8 << 10};
    size_t n = 0, n_all = 0;
    for (int i = 0; i < 200 && n_all < 40; i++) {
        arena_clear(&small);
        enum status status = queue_fetch(f->q, SECOND, &small, f->d, 20, &n, NULL);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(queue_ack(f->q, f->d[k].message, NULL), STATUS_OK);
        n_all += n;
    }
    arena_free(&small);
    assert_int_equal(n_all, 40);
    close_fixture(f);
}

int main(int argc, char **argv) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, STDERR_FILENO);
    if (argc == 7 && strcmp(argv[1], "publish") == 0)
        return publish(argv + 2);
    if (argc == 6 && strcmp(argv[1], "consume") == 0)
        return consume(argv + 2);
    if (argc == 6 && strcmp(argv[1], "erase") == 0)
        return erase(argv + 2);
    if (argc == 3 && strcmp(argv[1], "check") == 0)
        return check(argv + 2);
    const struct CMUnitTest alone[] = {cmocka_unit_test(reads_urls),
                                       cmocka_unit_test(refuses_urls)};
    const struct CMUnitTest served[] = {
        cmocka_unit_test(drops_repeats),
        cmocka_unit_test(carries_items),
        cmocka_unit_test(comes_again_without_ack),
        cmocka_unit_test(retries_later),
        cmocka_unit_test(gives_up),
        cmocka_unit_test(buries_what_ends_silently),
        cmocka_unit_test(begins_at_a_moment),
        cmocka_unit_test(shares),
        cmocka_unit_test(erases),
        cmocka_unit_test(refuses_when_full),
        cmocka_unit_test(gives_back_what_has_no_room),
    };
    int n_failed = cmocka_run_group_tests_name("queue", alone, NULL, NULL);
    server = getenv("VIGIL_TEST_NATS");
    if (server)
        n_failed += cmocka_run_group_tests_name("queue, served", served, NULL, NULL);
    return n_failed;
}
