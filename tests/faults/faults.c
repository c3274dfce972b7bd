/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/faults.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

void *__real_malloc(size_t n_bytes);
void *__real_calloc(size_t n, size_t n_bytes);
void *__real_realloc(void *block, size_t n_bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t n_bytes);
char *__real_strdup(const char *text);

void *__wrap_malloc(size_t n_bytes);
void *__wrap_calloc(size_t n, size_t n_bytes);
void *__wrap_realloc(void *block, size_t n_bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t n_bytes);
char *__wrap_strdup(const char *text);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t countdown; /* 0: not armed */
static bool is_for_ever;
static size_t n_failed;

void faults_arm(size_t k, bool for_ever) {
    pthread_mutex_lock(&lock);
    countdown = k;
    is_for_ever = for_ever;
    n_failed = 0;
    pthread_mutex_unlock(&lock);
}

size_t faults_disarm(void) {
    pthread_mutex_lock(&lock);
    countdown = 0;
    size_t n = n_failed;
    pthread_mutex_unlock(&lock);
    return n;
}

static bool fails(void) {
    pthread_mutex_lock(&lock);
    bool is_failing = countdown == 1;
    if (countdown > 1 || (is_failing && !is_for_ever))
        countdown--;
    n_failed += is_failing;
    pthread_mutex_unlock(&lock);
    if (is_failing)
        errno = ENOMEM;
    return is_failing;
}

void *__wrap_malloc(size_t n_bytes) {
    return fails() ? NULL : __real_malloc(n_bytes);
}

void *__wrap_calloc(size_t n, size_t n_bytes) {
    return fails() ? NULL : __real_calloc(n, n_bytes);
}

void *__wrap_realloc(void *block, size_t n_bytes) {
    return fails() ? NULL : __real_realloc(block, n_bytes);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t n_bytes) {
    return fails() ? ENOMEM : __real_posix_memalign(out, alignment, n_bytes);
}

char *__wrap_strdup(const char *text) {
    return fails() ? NULL : __real_strdup(text);
}
