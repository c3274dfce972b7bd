/* SPDX-License-Identifier: Apache-2.0
 *
 * test_lock.c - store/lock: one holder, in one process or several, whoever dies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "store/database/lock.h"
#include "tests/unit/model_files.h"

#define LONG_NS INT64_C(60000000000)
#define SHORT_NS INT64_C(5000000)

static void excludes_handles_of_one_process(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "lock");
    struct lock a, b;
    struct error err;
    assert_int_equal(lock_open(path, &a, &err), STATUS_OK);
    assert_int_equal(lock_open(path, &b, &err), STATUS_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(lock_take(&a, LONG_NS, &err), STATUS_OK);
    assert_int_equal(lock_take(&a, LONG_NS, &err), STATUS_INTERNAL);
    assert_int_equal(lock_take(&b, SHORT_NS, &err), STATUS_BUSY);
    assert_non_null(strstr(err.message, path));
    lock_release(&a);
    lock_release(&a);
    assert_int_equal(lock_take(&b, SHORT_NS, &err), STATUS_OK);
    assert_int_equal(lock_take(&a, 0, &err), STATUS_BUSY);
    lock_close(&b); /* lets go */
    assert_int_equal(lock_take(&a, 0, &err), STATUS_OK);
    lock_close(&a);
    lock_close(&a);
    lock_close(NULL);
    scratch_remove(dir);
}

static void refuses_what_is_no_file(void **state) {
    (void)state;
    char *dir = scratch_make();
    struct lock l;
    struct error err;
    assert_int_equal(lock_open(dir, &l, &err), STATUS_IO);
    const char *path = scratch_path(dir, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(lock_open(path, &l, &err), STATUS_INVALID);
    assert_int_equal(lock_open(scratch_path(dir, "no/lock"), &l, &err), STATUS_IO);
    scratch_remove(dir);
}

/* Who comes later finds another file under the path: both must not hold "the" lock. */
static void survives_removal(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "lock");
    struct lock a, b;
    struct error err;
    assert_int_equal(lock_open(path, &a, &err), STATUS_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(lock_open(path, &b, &err), STATUS_OK);
    assert_int_equal(lock_take(&b, SHORT_NS, &err), STATUS_OK);
    assert_int_equal(lock_take(&a, SHORT_NS, &err), STATUS_BUSY);
    lock_release(&b);
    assert_int_equal(lock_take(&a, SHORT_NS, &err), STATUS_OK);
    assert_int_equal(lock_take(&b, SHORT_NS, &err), STATUS_BUSY);
    lock_close(&a);
    lock_close(&b);
    scratch_remove(dir);
}

static void dies_with_its_holder(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "lock");
    struct lock l;
    struct error err;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool is_taken = lock_open(path, &l, NULL) == STATUS_OK &&
                        lock_take(&l, LONG_NS, NULL) == STATUS_OK;
        if (write(pipes[1], is_taken ? "y" : "n", 1) == 1)
            pause();
        _exit(1);
    }
    char answer = 0;
    assert_int_equal(read(pipes[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    assert_int_equal(lock_open(path, &l, &err), STATUS_OK);
    assert_int_equal(lock_take(&l, SHORT_NS, &err), STATUS_BUSY);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(lock_take(&l, SHORT_NS, &err), STATUS_OK);
    lock_close(&l);
    close(pipes[0]);
    close(pipes[1]);
    scratch_remove(dir);
}

enum { N_TAKERS = 4, N_TURNS = 50 };

/* Adds one to the number in a file, so slowly that two at a time lose some. */
static bool add_one(const char *path) {
    int value = 0, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool is_read = fd >= 0 && pread(fd, &value, sizeof value, 0) >= 0;
    value++;
    usleep(50);
    bool is_written = is_read && pwrite(fd, &value, sizeof value, 0) == sizeof value;
    close(fd);
    return is_written;
}

static bool take_turns(const char *dir) {
    char path[512], counter[512];
    snprintf(path, sizeof path, "%s/lock", dir);
    snprintf(counter, sizeof counter, "%s/counter", dir);
    struct lock l;
    bool is_good = lock_open(path, &l, NULL) == STATUS_OK;
    for (int i = 0; is_good && i < N_TURNS; i++) {
        is_good = lock_take(&l, LONG_NS, NULL) == STATUS_OK && add_one(counter);
        lock_release(&l); /* and comes back at once */
    }
    lock_close(&l);
    return is_good;
}

static void *take_turns_thread(void *dir) {
    return take_turns(dir) ? NULL : dir;
}

static int read_counter(const char *dir) {
    int value = -1, fd = open(scratch_path(dir, "counter"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    close(fd);
    return value;
}

static void excludes_processes(void **state) {
    (void)state;
    char *dir = scratch_make();
    pid_t children[N_TAKERS];
    for (int i = 0; i < N_TAKERS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0)
            _exit(take_turns(dir) ? 0 : 1);
    }
    for (int i = 0; i < N_TAKERS; i++) {
        int how = -1;
        assert_int_equal(waitpid(children[i], &how, 0), children[i]);
        assert_int_equal(how, 0);
    }
    assert_int_equal(read_counter(dir), N_TAKERS * N_TURNS);
    scratch_remove(dir);
}

static void excludes_threads(void **state) {
    (void)state;
    char *dir = scratch_make();
    pthread_t threads[N_TAKERS];
    for (int i = 0; i < N_TAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns_thread, dir), 0);
    for (int i = 0; i < N_TAKERS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(read_counter(dir), N_TAKERS * N_TURNS);
    scratch_remove(dir);
}

static bool is_locked(const char *path, int byte) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock what = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &what), 0);
    close(fd);
    return what.l_type != F_UNLCK;
}

/* A holder that lets go only to take it again at once stands behind the one who waits. */
static void is_fair(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "lock");
    struct lock l;
    struct error err;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(lock_open(path, &l, &err), STATUS_OK);
    for (int turn = 0; turn < 5; turn++) {
        assert_int_equal(lock_take(&l, LONG_NS, &err), STATUS_OK);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct lock mine;
            bool is_taken = lock_open(path, &mine, NULL) == STATUS_OK &&
                            lock_take(&mine, LONG_NS, NULL) == STATUS_OK;
            _exit(is_taken && write(pipes[1], "y", 1) == 1 ? 0 : 1);
        }
        for (int i = 0; !is_locked(path, 0); i++) { /* it waits, in the turnstile */
            assert_true(i < 10000);
            usleep(1000);
        }
        lock_release(&l);
        assert_int_equal(lock_take(&l, LONG_NS, &err), STATUS_OK);
        char answer = 0;
        assert_int_equal(fcntl(pipes[0], F_SETFL, O_NONBLOCK), 0);
        assert_int_equal(read(pipes[0], &answer, 1), 1); /* it was first */
        lock_release(&l);
        int how = -1;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_int_equal(how, 0);
    }
    lock_close(&l);
    close(pipes[0]);
    close(pipes[1]);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(excludes_handles_of_one_process),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(survives_removal),
        cmocka_unit_test(dies_with_its_holder),
        cmocka_unit_test(excludes_processes),
        cmocka_unit_test(excludes_threads),
        cmocka_unit_test(is_fair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
