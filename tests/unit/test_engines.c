/* SPDX-License-Identifier: Apache-2.0
 *
 * test_engines.c - the names of devices, on a machine that has none: which are refused, and
 * which are the CPU. tests/e2e/test_cuda.py has those that are there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda_library.h"
#include "kernels/engines.h"

static const struct {
    struct engine_options options;
    enum status status;
    const char *words; /* of the message */
} PLANS[] = {
    {{.device = NULL}, STATUS_OK, ""},
    {{.device = "auto"}, STATUS_OK, ""},
    {{.device = "cpu"}, STATUS_OK, ""},
    {{.device = "reference"}, STATUS_OK, ""},
    {{.device = "auto", .dtype = "int8"}, STATUS_OK, ""},
    {{.device = "auto", .isa = "avx2"}, STATUS_OK, ""},
    {{.device = "cuda"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "cuda:0"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "cuda:0,12,999"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "cuda:all"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "all"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "auto", .dtype = "fp16"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "auto", .isa = "wmma"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "cuda", .dtype = "fp16", .isa = "mma"}, STATUS_NOT_FOUND, "make cuda"},
    {{.device = "cuda", .dtype = "int8"}, STATUS_UNSUPPORTED, "fp16"},
    {{.device = "cuda", .isa = "avx2"}, STATUS_UNSUPPORTED, "mma"},
    {{.device = "auto", .isa = "mma", .dtype = "bf16"}, STATUS_UNSUPPORTED, "fp16"},
    {{.device = ""}, STATUS_UNSUPPORTED, "no device"},
    {{.device = "gpu"}, STATUS_UNSUPPORTED, "cuda:all"},
    {{.device = "cuda:"}, STATUS_UNSUPPORTED, "cuda:"},
    {{.device = "cuda:-1"}, STATUS_UNSUPPORTED, "cuda:-1"},
    {{.device = "cuda:1000"}, STATUS_UNSUPPORTED, "cuda:1000"},
    {{.device = "cuda:1,"}, STATUS_UNSUPPORTED, "cuda:1,"},
    {{.device = "cuda:,1"}, STATUS_UNSUPPORTED, "cuda:,1"},
    {{.device = "cuda:1 2"}, STATUS_UNSUPPORTED, "cuda:1 2"},
    {{.device = "cuda:0x1"}, STATUS_UNSUPPORTED, "cuda:0x1"},
    {{.device = "cuda:99999999999999999999"}, STATUS_UNSUPPORTED, "999"},
    {{.device = "cuda:3,1,3"}, STATUS_INVALID, "3 twice"},
    {{.device = "cuda:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"}, STATUS_LIMIT, "16"},
};

static void test_plans(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof PLANS / sizeof *PLANS; i++) {
        const struct engine_options *o = &PLANS[i].options;
        struct engines_plan plan = {0};
        struct error err = {0};
        enum status status = engines_plan(o, &plan, &err);
        if (status != PLANS[i].status || !strstr(err.message, PLANS[i].words))
            fail_msg("%s, %s, %s: %s \"%s\"", o->device ? o->device : "NULL",
                     o->dtype ? o->dtype : "", o->isa ? o->isa : "",
                     status_name(status), err.message);
        if (status != STATUS_OK)
            continue;
        assert_int_equal(plan.n, 1);
        assert_false(plan.is_cuda);
    }
}

static void test_auto(void **state) {
    (void)state;
    assert_true(engines_is_auto(&(struct engine_options){.device = "auto"}));
    assert_false(engines_is_auto(&(struct engine_options){.device = "cpu"}));
    assert_false(engines_is_auto(&(struct engine_options){.device = "cuda"}));
    assert_false(engines_is_auto(&(struct engine_options){0}));
    assert_false(
        engines_is_auto(&(struct engine_options){.device = "auto", .dtype = "fp16"}));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_auto),
    };
    /* Whatever this machine has. */
    if (setenv("VIGIL_CUDA_LIBRARY", "/none/libvigil_cuda.so", 1) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
