/* SPDX-License-Identifier: Apache-2.0
 *
 * test_faults.c - what the CUDA engine does when memory, the device, cuBLASLt or the file of
 * choices fails.
 *
 * It says what is wrong and gives back all that it took; or it says STATUS_DEVICE from then
 * on, and leaves what lies on the dead device to the end of the process. So batches that
 * kill a device run in children. Devices fail on order only in the emulation.
 */
#include <ctype.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/cuda/fixture.h"
#include "tests/unit/model_files.h"

static size_t free_bytes(void) {
    struct cuda_device device = {0};
    struct error err = {0};
    if (vigil_cuda_plugin()->describe(0, &device, &err) != STATUS_OK)
        check_stop("%s", err.message);
    return device.n_free_bytes;
}

/* The first time loads what stays: kernels, cuBLASLt. */
static void test_open_and_close(int argument) {
    enum { N = 20, SPARE_BYTES = 64 << 20 };
    size_t n_free = 0;
    (void)argument;
    fixture_make();
    for (int i = 0; i < N; i++) {
        struct engine *e = must_open(i % 2 ? QUICK : QUICK ",graphs", fixture.c);
        expect_right(e, "opened again");
        engine_close(e);
        expect_clean("opened and closed");
        if (i == 1)
            n_free = free_bytes();
    }
    CHECK(free_bytes() + SPARE_BYTES >= n_free, "%zu bytes are free, %zu were before",
          free_bytes(), n_free);
}

#ifdef VIGIL_CUDA_EMULATION

static bool has_digit(const char *text) {
    while (*text && !isdigit((unsigned char)*text))
        text++;
    return *text != '\0';
}

/* ---- memory ----------------------------------------------------------------------- */

/* The k-th allocation fails, for every k: "malloc" or "hostalloc". */
static void test_allocations(int argument) {
    const char *call = argument ? "hostalloc" : "malloc";
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    fixture_make();
    for (int k = 1;; k++) {
        char fault[64];
        struct engine *e;
        struct error err;
        snprintf(fault, sizeof fault, "%s:%d:2", call, k);
        emulation_reset();
        emulation_fault(NULL);
        emulation_fault(fault);
        enum status status = try_open(QUICK, &options, fixture.c, &e, &err);
        emulation_fault(NULL);
        if (status == STATUS_OK) {
            expect_right(e, "no allocation failed");
            engine_close(e);
            CHECK(k > 2, "only %d allocations by %s", k - 1, call);
            break;
        }
        expect_status(STATUS_NO_MEMORY, status, &err, fault);
        CHECK(has_digit(strstr(err.message, "cuda:0") ? err.message + 6 : err.message),
              "\"%s\" has no numbers", err.message);
        expect_clean(fault);
    }
    expect_clean("all allocations succeeded");
}

/* ---- the device ------------------------------------------------------------------- */

/* The k-th call of a kind fails while the engine opens: k is 1, then `factor` times what it
 * was and `step` more. The engine refuses, or does without. */
static void fail_opening(const char *call, const char *code, const char *off,
                         int factor, int step) {
    struct engine_options options = {.device = "cuda", .max_tokens = 64};
    int n_opened = 0, n_refused = 0, most = factor == 1 ? 12 : 2;
    for (int k = 1; n_opened < most; k = factor * k + step) {
        char fault[64];
        struct engine *e;
        struct error err;
        snprintf(fault, sizeof fault, "%s:%d:%s", call, k, code);
        emulation_reset();
        emulation_fault(fault);
        enum status status = try_open(off, &options, fixture.c, &e, &err);
        emulation_fault(NULL);
        CHECK(status == STATUS_OK || err.message[0], "%s: no message", fault);
        if (status == STATUS_OK) {
            expect_right(e, fault);
            n_opened++;
        } else {
            CHECK(status == STATUS_DEVICE || status == STATUS_NO_MEMORY ||
                      status == STATUS_UNSUPPORTED,
                  "%s: %s: %s", fault, status_name(status), err.message);
            n_opened = 0;
            n_refused++;
        }
        engine_close(e);
        expect_clean(fault);
    }
    emulation_reset();
    CHECK(n_refused > 0 || strcmp(call, "blas") == 0 || strcmp(call, "matmul") == 0,
          "%s never failed", call);
}

static void test_calls_while_opening(int argument) {
    fixture_make();
    switch (argument) {
    case 0:
        fail_opening("call", "999", QUICK ",graphs", 1, 1);
        break;
    case 1:
        fail_opening("call", "719:sticky", QUICK, 1, 41);
        break;
    case 2:
        fail_opening("blas", "14", QUICK ",graphs", 1, 1);
        break;
    case 3:
        fail_opening("matmul", "13", "cache,graphs", 8, 3);
        break;
    default:
        fail_opening("memcpy", "719:sticky", QUICK, 1, 5);
    }
}

/* Runs it in a child, which ends with what it returns, or 1 where a check failed. */
static int in_child(int (*run)(const void *), const void *argument) {
    int status = -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int code = 1;
        if (setjmp(check_end) == 0)
            code = run(argument);
        fflush(stdout);
        _exit(check_n_failures ? 1 : code);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}

enum { CHILD_DIED = 2 }; /* the device did, as it should */

/* After a failure: nothing but STATUS_DEVICE, and a quick end. */
static void expect_dead(struct engine *e, const char *when) {
    struct error err = {0};
    float logits[N_SEQUENCES * 3], tags[64 * 5];
    emulation_fault(NULL);
    expect_status(STATUS_DEVICE, engine_submit(e, &fixture.batch, &err), &err, when);
    expect_status(STATUS_DEVICE, engine_wait(e, logits, tags, &err), &err, when);
    expect_status(STATUS_DEVICE, run_fixture(e, &err), &err, when);
}

struct attempt {
    struct engine *e; /* the child's own, by fork */
    const char *fault;
};

/* A fault strikes somewhere in two batches in flight, or not. */
static int run_attempt(const void *argument) {
    const struct attempt *a = argument;
    float logits[N_SEQUENCES * 3], tags[64 * 5];
    struct error err = {0};
    emulation_fault(a->fault);
    enum status status = engine_submit(a->e, &fixture.batch, &err);
    if (status == STATUS_OK)
        status = engine_submit(a->e, &fixture.batch, &err);
    if (status == STATUS_OK)
        status = engine_wait(a->e, logits, tags, &err);
    if (status == STATUS_OK)
        status = engine_wait(a->e, logits, tags, &err);
    if (status != STATUS_OK) {
        expect_status(STATUS_DEVICE, status, &err, a->fault);
        expect_dead(a->e, a->fault);
    }
    emulation_fault(NULL);
    engine_close(a->e);
    if (status == STATUS_OK)
        expect_clean(a->fault);
    return status == STATUS_OK ? 0 : CHILD_DIED;
}

/* The k-th call of a kind fails, for every k. */
static void fail_running(const char *call, const char *code, const char *off,
                         bool is_lazy) {
    char fault[64];
    const struct attempt attempt = {must_open(off, fixture.c), fault};
    int ended, k = 0;
    emulation_set_lazy(is_lazy);
    do {
        snprintf(fault, sizeof fault, "%s:%d:%s", call, ++k, code);
        ended = in_child(run_attempt, &attempt);
        CHECK(ended == 0 || ended == CHILD_DIED, "%s: the child ended with %d", fault,
              ended);
    } while (ended == CHILD_DIED);
    emulation_set_lazy(0);
    expect_right(attempt.e, "after the children");
    engine_close(attempt.e);
    CHECK(k > 2, "%s failed only %d times", call, k - 1);
}

static void test_calls_while_running(int argument) {
    fixture_make();
    bool is_lazy = argument & 1;
    switch (argument >> 1) {
    case 0:
        fail_running("launch", "719:sticky", QUICK, is_lazy);
        break;
    case 1:
        fail_running("launch", "700:sticky", QUICK ",graphs", is_lazy);
        break;
    case 2:
        fail_running("call", "999", QUICK, is_lazy);
        break;
    default:
        fail_running("call", "999", QUICK ",graphs", is_lazy);
    }
}

static int run_hang(const void *off) {
    enum { DEADLINE_MS = 150 };
    struct error err = {0};
    setenv("VIGIL_CUDA_DEADLINE_MS", "150", 1);
    struct engine *e = must_open(off, fixture.c);
    expect_right(e, "before the device hangs");
    emulation_fault("hang:1");
    int64_t start = clock_now_ns();
    expect_status(STATUS_DEVICE, run_fixture(e, &err), &err, "a device that hangs");
    int64_t ms = (clock_now_ns() - start) / 1000000;
    CHECK(ms >= DEADLINE_MS && ms < 20 * DEADLINE_MS, "it took %lld ms", (long long)ms);
    expect_dead(e, "a device that hung");
    engine_close(e);
    return 0;
}

static void test_hang(int argument) {
    fixture_make();
    CHECK(in_child(run_hang, argument ? QUICK : QUICK ",graphs") == 0, "see above");
}

/* cuBLASLt's products are no numbers for a while. */
static void test_nan(int argument) {
    struct error err = {0};
    fixture_make();
    struct engine *e =
        must_open(argument ? QUICK ",own" : QUICK ",own,graphs", fixture.c);
    emulation_fault("nan:1");
    expect_status(STATUS_INTERNAL, run_fixture(e, &err), &err, "products of NaN");
    emulation_fault(NULL);
    expect_right(e, "after products of NaN");
    engine_close(e);
}

/* Every capability has its path, and the right answers. */
static void test_capabilities(int argument) {
    (void)argument;
    static const int capabilities[] = {70, 75, 80, 86, 89, 90};
    struct engine_options options = {.isa = "mma", .max_tokens = 96};
    struct error err;
    fixture_make();
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
        struct engine *e;
        bool has_mma = capabilities[i] >= 80;
        emulation_set_capability(capabilities[i]);
        enum status status = try_open(QUICK, &options, fixture.c, &e, &err);
        expect_status(has_mma ? STATUS_OK : STATUS_UNSUPPORTED, status, &err, "mma");
        engine_close(e);
        for (int graphs = 0; graphs < 2; graphs++) {
            e = must_open(graphs ? QUICK : QUICK ",graphs", fixture.c);
            CHECK(strcmp(e->info.isa, has_mma ? "mma" : "wmma") == 0, "sm_%d has %s",
                  capabilities[i], e->info.isa);
            expect_right(e, "a capability");
            engine_close(e);
        }
        expect_clean("a capability");
    }
    emulation_set_capability(80);
}

/* Streams that run only when they are waited for, threads in other orders: the same, though
 * a slot has another batch every time. */
static void test_lazy_streams(int argument) {
    enum { N_BATCHES = 3, N_ROUNDS = 4 * N_BATCHES };
    static const int32_t lengths[] = {5, 31, 2, 20, 11, 1};
    fixture_make();
    struct engine *e = must_open(argument ? QUICK : QUICK ",graphs", fixture.c);
    struct batch batches[N_BATCHES];
    float want[N_BATCHES][2 * 3], got[2 * 3], tags[64 * 5];
    struct error err = {0};
    for (int i = 0; i < N_BATCHES; i++) {
        batches[i] = random_batch(lengths + 2 * i, 2, OVERFLOWS, i % 2);
        expect_status(STATUS_OK, engine_run(e, &batches[i], want[i], tags, &err), &err,
                      "alone");
    }
    emulation_set_lazy(1);
    for (int round = 0; round <= N_ROUNDS; round++) {
        emulation_set_order((enum emulation_order)(round / N_BATCHES % 3), 5);
        if (round < N_ROUNDS)
            expect_status(STATUS_OK, engine_submit(e, &batches[round % 3], &err), &err,
                          "submit");
        if (round == 0)
            continue;
        memset(got, 0, sizeof got);
        expect_status(STATUS_OK, engine_wait(e, got, tags, &err), &err, "wait");
        CHECK(memcmp(want[(round - 1) % 3], got, sizeof got) == 0,
              "round %d: other answers", round);
    }
    emulation_set_order(EMULATION_FORWARD, 0);
    emulation_set_lazy(0);
    for (int i = 0; i < N_BATCHES; i++)
        random_batch_free(&batches[i]);
    engine_close(e);
    expect_clean("lazy streams");
}

/* ---- devices of other kinds: in a child, which sets the environment first ------------- */

static void with(const char *variable, const char *value, int (*run)(const void *)) {
    setenv(variable, value, 1);
    CHECK(in_child(run, NULL) == 0, "with %s=%s: see above", variable, value);
    unsetenv(variable);
}

static int run_without_algorithms(const void *argument) {
    (void)argument;
    fixture_make();
    struct engine *e = must_open(QUICK, fixture.c);
    expect_right(e, "without proposals of cuBLASLt");
    engine_close(e);
    e = must_open(QUICK ",own", fixture.c);
    expect_right(e, "without proposals, ours not wanted");
    engine_close(e);
    expect_clean("without proposals");
    return 0;
}

static int run_with_little_memory(const void *argument) {
    (void)argument;
    struct engine_options options = {.device = "cuda"};
    struct engine *e;
    struct error err;
    fixture_make();
    expect_status(STATUS_NO_MEMORY, try_open(QUICK, &options, fixture.c, &e, &err),
                  &err, "a small device");
    CHECK(strstr(err.message, " MB free of ") && has_digit(err.message + 6), "\"%s\"",
          err.message);
    expect_clean("a small device");
    return 0;
}

static int run_without_devices(const void *argument) {
    (void)argument;
    struct error err = {0};
    CHECK(vigil_cuda_plugin()->n_devices(&err) == 0 && err.message[0], "a device?");
    return 0;
}

static int run_on_two_devices(const void *argument) {
    (void)argument;
    const struct cuda_plugin *plugin = vigil_cuda_plugin();
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    struct engine *engines[2] = {NULL};
    struct cuda_device device;
    struct error err = {0};
    fixture_make();
    setenv("VIGIL_CUDA_DISABLE", QUICK, 1);
    CHECK(plugin->n_devices(&err) == 2, "not two devices");
    CHECK(plugin->describe(2, &device, &err) != STATUS_OK, "a third device");
    CHECK(plugin->open(2, &options, fixture.c, &engines[0], &err) != STATUS_OK,
          "opened a third device");
    expect_clean("a third device");
    for (int i = 0; i < 2; i++)
        if (plugin->open(i, &options, fixture.c, &engines[i], &err) != STATUS_OK)
            check_stop("%s", err.message);
    CHECK(strcmp(engines[1]->info.device, "cuda:1") == 0, "%s",
          engines[1]->info.device);
    for (int i = 0; i < 4; i++)
        expect_right(engines[i % 2], "two devices");
    emulation_fault("launch@1:1:719:sticky");
    expect_status(STATUS_DEVICE, run_fixture(engines[1], &err), &err, "the broken one");
    expect_right(engines[0], "beside a broken device");
    engine_close(engines[1]);
    expect_right(engines[0], "the other one is closed");
    engine_close(engines[0]);
    return 0;
}

static void test_no_algorithms(int argument) {
    (void)argument;
    with("VIGIL_EMULATION_NO_ALGORITHMS", "1", run_without_algorithms);
}

static void test_little_memory(int argument) {
    (void)argument;
    with("VIGIL_EMULATION_MEMORY", "4000000", run_with_little_memory);
}

static void test_no_devices(int argument) {
    (void)argument;
    with("VIGIL_EMULATION_DEVICES", "0", run_without_devices);
}

static void test_two_devices(int argument) {
    (void)argument;
    with("VIGIL_EMULATION_DEVICES", "2", run_on_two_devices);
}

/* ---- the file of choices ----------------------------------------------------------- */

/* Launches that opening took. */
static uint64_t open_counted(const struct checkpoint *c) {
    uint64_t before = emulation_n_launches() + emulation_n_matmuls();
    struct engine *e = must_open("graphs", c);
    uint64_t n = emulation_n_launches() + emulation_n_matmuls() - before;
    expect_right(e, "with a file of choices");
    engine_close(e);
    return n;
}

static void find_file(const char *directory, char path[600]) {
    DIR *d = opendir(directory);
    path[0] = '\0';
    for (const struct dirent *entry; d && (entry = readdir(d));)
        if (entry->d_name[0] != '.')
            snprintf(path, 600, "%s/%s", directory, entry->d_name);
    if (d)
        closedir(d);
}

static void test_file_of_choices(int argument) {
    (void)argument;
    char *directory = scratch_make(), path[600], blocked[600];
    static char kept[1 << 20], text[1 << 20];
    fixture_make();
    setenv("VIGIL_CACHE_DIR", directory, 1);
    uint64_t n_timed = open_counted(fixture.c), n_read = open_counted(fixture.c);
    CHECK(n_read < n_timed / 4, "%llu launches with the file, %llu without",
          (unsigned long long)n_read, (unsigned long long)n_timed);
    find_file(directory, path);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(kept, 1, sizeof kept, f) : 0;
    if (f)
        fclose(f);
    CHECK(n > 0, "no file in %s", directory);
    for (size_t cut = 0; cut < 6 && n > 0; cut++) {
        memcpy(text, kept, n);
        if (cut % 2) /* a digit or letter that is not so */
            for (size_t i = n * cut / 6; i < n; i += 40)
                text[i] = text[i] == '\n' ? '\n' : '9';
        scratch_write(path, text, cut % 2 ? n : n * cut / 6);
        open_counted(fixture.c);
    }
    snprintf(blocked, sizeof blocked, "%s/not-a-directory", path);
    setenv("VIGIL_CACHE_DIR", blocked, 1);
    open_counted(fixture.c);
    unsetenv("VIGIL_CACHE_DIR");
    scratch_remove(directory);
    expect_clean("files of choices");
}

#endif

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
#ifdef VIGIL_CUDA_EMULATION
        /* These first: their children must find the emulation untouched. */
        {"cuBLASLt proposes nothing", test_no_algorithms, 0},
        {"little memory", test_little_memory, 0},
        {"no devices", test_no_devices, 0},
        {"two devices", test_two_devices, 0},
        {"device memory runs out", test_allocations, 0},
        {"pinned memory runs out", test_allocations, 1},
        {"opening: any call fails", test_calls_while_opening, 0},
        {"opening: the device fails", test_calls_while_opening, 1},
        {"opening: cuBLASLt fails", test_calls_while_opening, 2},
        {"opening: a product fails while it is timed", test_calls_while_opening, 3},
        {"opening: a copy fails", test_calls_while_opening, 4},
        {"running: a launch of a graph fails", test_calls_while_running, 0},
        {"running: the same, lazily", test_calls_while_running, 1},
        {"running: a launch fails", test_calls_while_running, 2},
        {"running: the same, lazily, no graphs", test_calls_while_running, 3},
        {"running: any call fails", test_calls_while_running, 4},
        {"running: any call, lazily", test_calls_while_running, 5},
        {"running: any call, no graphs", test_calls_while_running, 6},
        {"running: any call, lazily, no graphs", test_calls_while_running, 7},
        {"the device hangs", test_hang, 0},
        {"the device hangs in a graph", test_hang, 1},
        {"products of NaN", test_nan, 0},
        {"products of NaN in a graph", test_nan, 1},
        {"every capability", test_capabilities, 0},
        {"lazy streams", test_lazy_streams, 0},
        {"lazy streams of graphs", test_lazy_streams, 1},
        {"the file of choices", test_file_of_choices, 0},
#endif
        {"open and close", test_open_and_close, 0},
    };
    int n_failed = check_main(cases, sizeof cases / sizeof *cases, argc, argv);
    fixture_free();
    return n_failed;
}
