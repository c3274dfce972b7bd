# Vigil. `make help` lists the targets.
#
# build/            objects, libvigil.a, programs in build/bin, tests in build/tests
# build/asan, tsan  the same tree with sanitizers: make SANITIZE=address,undefined …
.DEFAULT_GOAL := all
SHELL := /bin/bash
MAKEFLAGS += --no-builtin-rules
V ?= 0
CC := gcc
SANITIZE ?=
BUILD ?= build$(if $(SANITIZE),/$(firstword $(subst $(comma), ,$(SANITIZE))))
comma := ,
VERSION := 0.1.0

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Walloca -Wformat=2 -Wstrict-prototypes \
  -Wmissing-prototypes -Wpointer-arith -Wundef -Werror
HARDEN := -fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
  -fno-strict-overflow -fno-delete-null-pointer-checks -fPIE \
  $(if $(SANITIZE),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
CFLAGS := -std=c11 -O2 -g $(WARNINGS) $(HARDEN) \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
CPPFLAGS := -I. -D_GNU_SOURCE -DVIGIL_VERSION='"$(VERSION)"'
LDFLAGS := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LDLIBS := -lmicrohttpd -ljansson -lcurl-gnutls -lgnutls -lm -lpthread -ldl

# Kernels: a file's name says which instructions it may use.
KERNEL_FLAGS := -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math
flags_for = $(if $(filter kernels/cpu/%,$1),$(KERNEL_FLAGS)) \
  $(if $(filter %_avx2.c,$1),-mavx2 -mfma -mf16c) \
  $(if $(filter %_avx512.c,$1),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c -mprefer-vector-width=512) \
  $(if $(filter %_avx512bf16.c,$1),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mf16c -mprefer-vector-width=512)

# One program a line: name:file with main
PROGRAMS := vigil:base/main.c vigil-tokenize:tokenizer/main.c vigil-model:weights/main.c \
  vigil-serve:server/main.c vigil-classify:server/classify.c vigil-bench:bench/main.c \
  vigil-doctor:server/doctor.c
program_names := $(foreach p,$(PROGRAMS),$(firstword $(subst :, ,$p)))
program_mains := $(foreach p,$(PROGRAMS),$(lastword $(subst :, ,$p)))
main_of = $(lastword $(subst :, ,$(filter $1:%,$(PROGRAMS))))

SOURCES := $(filter-out $(program_mains),$(wildcard base/*.c tokenizer/*.c weights/*.c \
  model/*.c kernels/*.c kernels/cpu/*.c server/*.c bench/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
MAINS := $(wildcard $(program_mains))
BINARIES := $(foreach p,$(PROGRAMS),$(if $(wildcard $(lastword $(subst :, ,$p))),$(BUILD)/bin/$(firstword $(subst :, ,$p))))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n'
endif

.PHONY: all test unit clean help
all: $(BINARIES)

# Rebuild when the flags change: the file is rewritten only when its content differs.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(CFLAGS) $(CPPFLAGS) $(LDFLAGS) $(KERNEL_FLAGS)' | cmp -s - $@ || \
	  echo '$(CC) $(CFLAGS) $(CPPFLAGS) $(LDFLAGS) $(KERNEL_FLAGS)' > $@
FORCE:

$(BUILD)/%.o: %.c $(BUILD)/flags
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(call flags_for,$<) -MMD -MP -c $< -o $@

$(BUILD)/libvigil.a: $(OBJECTS)
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $(OBJECTS)

.SECONDEXPANSION:
$(BUILD)/bin/%: $$(BUILD)/$$(patsubst $$(percent).c,$$(percent).o,$$(call main_of,%)) $(BUILD)/libvigil.a
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $< $(BUILD)/libvigil.a $(LDLIBS) -o $@
percent := %

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/libvigil.a
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $< $(BUILD)/libvigil.a -lcmocka $(LDLIBS) -o $@

unit: $(UNIT_TESTS)
	@for t in $(UNIT_TESTS); do $$t || exit 1; done

test: all unit

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.SECONDARY:
