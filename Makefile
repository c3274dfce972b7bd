# SPDX-License-Identifier: Apache-2.0
#
# Vigil. `make help` lists the targets.
#
# build/            objects, libvigil.a, programs in build/bin, tests in build/tests
# build/asan, tsan  the same tree with sanitizers: make SANITIZE=address,undefined TARGET
#
# A file joins the build by lying in its folder; a program has one line in PROGRAMS; a file's
# name says which instructions it may use. Flags are kept in files that change only when the
# flags do, so that a rebuild touches what changed and nothing else.
.DEFAULT_GOAL := all
SHELL := /bin/bash
MAKEFLAGS += --no-builtin-rules
# As many jobs as processors, unless -j says otherwise.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
.DELETE_ON_ERROR:
.SECONDARY:

comma := ,
V ?= 0
CC := gcc
SANITIZE ?=
EMULATE ?=
sanitize_name = $(subst address,asan,$(subst thread,tsan,$(firstword $(subst $(comma), ,$1))))
BUILD ?= build$(if $(SANITIZE),/$(call sanitize_name,$(SANITIZE)))$(if $(EMULATE),/emulated)
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0
FUZZ_SECONDS ?= 60
JOBS := $(shell nproc 2>/dev/null || echo 2)

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n'
endif

# --- Flags ---------------------------------------------------------------------------------

compiler := $(shell $(CC) --version 2>/dev/null | head -n 1)
is_clang := $(findstring clang,$(compiler))

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Walloca -Wformat=2 -Wstrict-prototypes \
  -Wmissing-prototypes -Wpointer-arith -Wundef -Wimplicit-fallthrough -Wwrite-strings \
  $(if $(is_clang),,-Wtrampolines -Wbidi-chars=any) -Werror
# What the compiler can do against a bug that gets through (OpenSSF's list for GCC 12).
HARDEN := -fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
  -fno-strict-overflow -fno-delete-null-pointer-checks -fPIE \
  $(if $(SANITIZE),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
# Everything but the kernels, which read only what was checked before. A sanitizer needs
# stack of its own, and has to see a variable that was never set.
GUARD := -fno-strict-aliasing $(if $(is_clang),,-fzero-call-used-regs=used-gpr \
  $(if $(SANITIZE),,-ftrivial-auto-var-init=zero -Wstack-usage=16384))
CFLAGS := -std=c11 -O2 -g $(WARNINGS) $(HARDEN) -ffile-prefix-map=$(CURDIR)=. \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
CPPFLAGS := -I. -D_GNU_SOURCE -DVIGIL_VERSION='"$(VERSION)"'
LDFLAGS := -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code -Wl,--as-needed \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LDLIBS := -lmicrohttpd -ljansson -lgnutls -lm -lpthread -ldl

# Folders where every implicit conversion is an error.
STRICT := base/%
STRICT_FLAGS := -Wconversion -Wsign-conversion

# ASan's stand-in for the stack aligns to less than a vector of 64 bytes: not in kernels.
KERNEL_FLAGS := -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math \
  $(if $(findstring address,$(SANITIZE)),--param=asan-use-after-return=0)
AVX2 := -mavx2 -mfma -mf16c
AVX512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
AVX512_VNNI := -mavx512vnni
AVX512_BF16 := -mavx512bf16
# make EMULATE=avx512: the AVX-512 kernels on SIMDe, for test-emulated alone.
ifeq ($(EMULATE),avx512)
AVX512 := -std=gnu11 -Wno-psabi $(AVX2) -DVIGIL_EMULATE_AVX512
AVX512_VNNI :=
AVX512_BF16 :=
ISA_FLAGS := -DVIGIL_EMULATE_AVX512
endif
# The products and operators read and write only what the engine hands to a task; watching
# each of their accesses for races makes them 50 times slower. That tasks do not overlap is
# seen in test_engine: any number of threads gives the same bits.
ifeq ($(SANITIZE),thread)
UNWATCHED := kernels/cpu/gemm_%.c kernels/cpu/operators_%.c model/reference.c
endif
flags_for = $(if $(filter kernels/cpu/%,$1),$(KERNEL_FLAGS),$(GUARD)) \
  $(if $(filter $(UNWATCHED),$1),-fno-sanitize=thread) \
  $(if $(filter $(STRICT),$1),$(STRICT_FLAGS)) \
  $(if $(filter %_avx2.c,$1),$(AVX2)) \
  $(if $(filter %_avx512.c,$1),$(AVX512) $(AVX512_VNNI)) \
  $(if $(filter %_avx512bf16.c,$1),$(AVX512) $(AVX512_BF16)) \
  $(if $(filter %/isa.c,$1),$(ISA_FLAGS))

# --- What there is -------------------------------------------------------------------------

# name:file with main
PROGRAMS := vigil:base/main.c vigil-tokenize:tokenizer/main.c vigil-model:weights/main.c \
  vigil-serve:server/main.c vigil-classify:server/classify.c vigil-bench:bench/main.c \
  vigil-doctor:server/doctor.c
main_of = $(lastword $(subst :, ,$(filter $1:%,$(PROGRAMS))))
FOLDERS := base tokenizer weights model kernels kernels/cpu server bench

all_mains := $(foreach p,$(PROGRAMS),$(lastword $(subst :, ,$p)))
NAMES := $(foreach p,$(PROGRAMS),$(if $(wildcard $(lastword $(subst :, ,$p))),$(firstword $(subst :, ,$p))))
BINARIES := $(NAMES:%=$(BUILD)/bin/%)
SOURCES := $(filter-out $(all_mains),$(wildcard $(FOLDERS:%=%/*.c)))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
MAINS := $(wildcard $(all_mains))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
FAULT_TESTS := $(patsubst tests/faults/%.c,$(BUILD)/faults/%,$(wildcard tests/faults/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
# Helpers beside the tests, linked into each of them.
TEST_HELPERS := $(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c))
FAULT_HELPERS := $(filter-out tests/faults/test_%,$(wildcard tests/faults/*.c))
FUZZ_HELPERS := $(filter-out tests/fuzz/fuzz_%,$(wildcard tests/fuzz/*.c))
MAN_PAGES := $(NAMES:%=$(BUILD)/man/%.1)
COMPLETION := $(BUILD)/completion/vigil.bash

# --- Targets for people --------------------------------------------------------------------

.PHONY: help all run test unit e2e faults test-clients test-emulated emulated fuzz asan tsan lint fmt bench install \
  uninstall info clean size deps tests FORCE

help:
	@printf '%s\n' \
	  'Use' \
	  '  run            build, then serve weights/ade on port 8080 (PORT=)' \
	  '  all            build the programs, man pages and shell completion (the default)' \
	  '  install        install under PREFIX (/usr/local), staged in DESTDIR' \
	  '  uninstall      remove what install put there' \
	  '  deps           install every Debian package that any target needs' \
	  'Check' \
	  '  test           every test that needs no network: unit, faults, e2e' \
	  '  unit           unit tests alone; faults: failing allocations; e2e: real processes' \
	  '  test-clients   clients from PyPI against a server, in a scratch environment' \
	  '  test-emulated  the AVX-512 kernels on any processor with AVX2' \
	  '  asan  tsan     unit, fault and end-to-end tests under sanitizers' \
	  '  fuzz           each fuzz target for FUZZ_SECONDS (60); FUZZ= names some of them' \
	  '  lint           format, static analysis, house rules;  fmt: format in place' \
	  '  bench          the figures of bench/README.md' \
	  'Look' \
	  '  info           what was detected here;  size: stripped programs, at most 5 MB' \
	  '  clean          remove build/' \
	  'Variables: V=1 shows commands, BUILD= another build folder, SANITIZE= (see asan), CC='

all: $(BINARIES) $(MAN_PAGES) $(COMPLETION)

PORT ?= 8080
run: all
	@base=http://127.0.0.1:$(PORT); server=$$$$; \
	( for i in {1..300}; do \
	    kill -0 $$server 2>/dev/null || exit 0; \
	    answer=; \
	    { exec 3<>/dev/tcp/127.0.0.1/$(PORT) && \
	      printf 'GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 && \
	      read -r -t 2 answer <&3; } 2>/dev/null; \
	    [[ $$answer == *" 200 "* ]] && break; \
	    sleep 0.1; \
	  done; \
	  printf '%s\n' \
	    "try:   curl $$base/v1/classify -H 'Content-Type: application/json' -d '{\"inputs\": \"this drug gave me a rash\", \"entities\": true}'" \
	    "read:  docs/API.md, $$base/openapi.json, $(BUILD)/bin/vigil serve --help" \
	    "stop:  Ctrl-C" >&2 ) & \
	exec $(BUILD)/bin/vigil serve --model weights/ade --port $(PORT)

tests: $(UNIT_TESTS) $(FAULT_TESTS)
test: all tests
	@tests/run --build $(BUILD)
unit: $(UNIT_TESTS)
	@tests/run --build $(BUILD) unit
faults: $(FAULT_TESTS)
	@tests/run --build $(BUILD) faults
e2e: all
	@tests/run --build $(BUILD) e2e
asan:
	@$(MAKE) --no-print-directory SANITIZE=address,undefined test
tsan:
	@$(MAKE) --no-print-directory SANITIZE=thread test
# The kernels' tests where the processor has no AVX-512: its kernels on an emulation.
EMULATED_TESTS := test_kernels test_engine test_golden
test-emulated:
	@$(MAKE) --no-print-directory EMULATE=avx512 emulated
emulated: $(EMULATED_TESTS:%=$(BUILD)/tests/%)
	@tests/run --build $(BUILD) --only '$(EMULATED_TESTS)' unit
test-clients: all
	@tests/clients/run --build $(BUILD)
fuzz: $(FUZZERS:%=build/fuzz/bin/%)
	@tests/fuzz/run --seconds $(FUZZ_SECONDS) --jobs $(JOBS) $(or $(FUZZ),$(FUZZERS))
bench: all
	@bench/run

lint: $(MAN_PAGES)
	@tests/lint/run --build $(BUILD) --jobs $(JOBS)
tracked_c = $(shell git ls-files '*.c' '*.h')
fmt:
	$(Q)clang-format -i $(tracked_c)

info:
	@echo 'version   $(VERSION)'
	@echo 'compiler  $(or $(compiler),none: make deps)'
	@echo 'build     $(BUILD)$(if $(SANITIZE), with $(SANITIZE))'
	@echo 'programs  $(NAMES)'
	@echo 'sources   $(words $(SOURCES) $(MAINS)) files, $(words $(UNIT_TESTS)) unit tests, $(words $(FUZZERS)) fuzz targets'
	@echo 'machine   $(JOBS) processors,$(shell grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)'
	@echo 'isa      $(shell grep -m1 '^flags' /proc/cpuinfo | grep -oE ' (avx2|fma|avx512f|avx512_vnni|avx512_bf16|amx_int8)\b' | tr -d '\n')'
	@echo 'data      $(if $(wildcard ../shared),../shared is there: tests use more data,no ../shared: tests use their own data)'

size: $(BINARIES)
	@mkdir -p $(BUILD)/stripped
	@total=0; for b in $(BINARIES); do \
	  strip -o $(BUILD)/stripped/$$(basename $$b) $$b || exit 1; \
	  n=$$(stat -c %s $(BUILD)/stripped/$$(basename $$b)); total=$$((total + n)); \
	  printf '%9d  %s\n' $$n $$(basename $$b); done; \
	printf '%9d  in all, of 5000000\n' $$total; [ $$total -le 5000000 ]

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/vigil/weights/ade
	install -s $(BINARIES) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(MAN_PAGES) $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(COMPLETION) $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vigil
	$(if $(wildcard weights/ade/*),install -m 644 $(wildcard weights/ade/*) $(DESTDIR)$(PREFIX)/share/vigil/weights/ade)

uninstall:
	rm -f $(NAMES:%=$(DESTDIR)$(PREFIX)/bin/%) \
	  $(NAMES:%=$(DESTDIR)$(PREFIX)/share/man/man1/%.1) \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vigil
	rm -rf $(DESTDIR)$(PREFIX)/share/vigil

clean:
	rm -rf $(BUILD)

# --- Packages ------------------------------------------------------------------------------

# Only the targets that promise it install packages; a plain `make` says what is missing.
installing := $(filter run test test-emulated emulated unit faults e2e asan tsan lint fuzz test-clients deps,$(MAKECMDGOALS))
deps_mode := $(if $(installing),,--check)
build/deps/%: docker/install-deps
	@docker/install-deps $(deps_mode) $*
	@mkdir -p $(@D) && touch $@
deps: build/deps/build build/deps/test build/deps/lint build/deps/fuzz build/deps/clients
test test-emulated unit faults e2e tests: | build/deps/test
lint fmt: | build/deps/lint
test-clients: | build/deps/clients

# --- Rules ---------------------------------------------------------------------------------

# keep(file, text): rewrites the file only when the text differs.
keep = @mkdir -p $(dir $1); text='$(subst ','\'',$2)'; \
  [ "$$(cat $1 2>/dev/null)" = "$$text" ] || printf '%s\n' "$$text" > $1
common_flags = $(compiler) $(CC) $(CFLAGS) $(CPPFLAGS)
$(BUILD)/flags: FORCE
	$(call keep,$@,$(common_flags) $(GUARD) $(STRICT_FLAGS) $(STRICT))
$(BUILD)/flags-kernels: FORCE
	$(call keep,$@,$(common_flags) $(KERNEL_FLAGS) $(AVX2) $(AVX512) $(UNWATCHED))
$(BUILD)/flags-link: FORCE
	$(call keep,$@,$(compiler) $(CFLAGS) $(LDFLAGS) $(LDLIBS))
$(BUILD)/objects: FORCE
	$(call keep,$@,$(OBJECTS))
FORCE:

compile = $(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(call flags_for,$<) -MMD -MP -c $< -o $@

$(BUILD)/kernels/cpu/%.o: kernels/cpu/%.c $(BUILD)/flags-kernels | build/deps/build
	$(say) CC $<
	$(compile)
$(BUILD)/%.o: %.c $(BUILD)/flags | build/deps/build
	$(say) CC $<
	$(compile)
# The assembler puts it in; the compiler does not know.
$(BUILD)/server/openapi.o build/fuzz/server/openapi.o: server/openapi.json
$(UNIT_TESTS:$(BUILD)/tests/%=$(BUILD)/tests/unit/%.o): | build/deps/test
$(FAULT_TESTS:$(BUILD)/faults/%=$(BUILD)/tests/faults/%.o): | build/deps/test

$(BUILD)/libvigil.a: $(OBJECTS) $(BUILD)/objects
	$(say) AR $@
	$(Q)rm -f $@ && ar rcsD $@ $(OBJECTS)

define program_rule
$(BUILD)/bin/$1: $(BUILD)/$(2:.c=.o) $(BUILD)/libvigil.a $(BUILD)/flags-link
	$$(say) LINK $$@
	$$(Q)mkdir -p $$(@D) && $$(CC) $$(CFLAGS) $$(LDFLAGS) $$< $(BUILD)/libvigil.a $$(LDLIBS) -o $$@
endef
$(foreach n,$(NAMES),$(eval $(call program_rule,$n,$(call main_of,$n))))

$(BUILD)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(TEST_HELPERS:%.c=$(BUILD)/%.o) \
    $(BUILD)/libvigil.a $(BUILD)/flags-link
	$(say) LINK $@
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(filter %.o,$^) $(BUILD)/libvigil.a -lcmocka $(LDLIBS) -lz -o $@

# Our calls for memory go through the test, which can say no.
WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=posix_memalign,--wrap=strdup
$(BUILD)/faults/test_%: $(BUILD)/tests/faults/test_%.o $(FAULT_HELPERS:%.c=$(BUILD)/%.o) \
    $(BUILD)/libvigil.a $(BUILD)/flags-link
	$(say) LINK $@
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) $(WRAP) $(filter %.o,$^) \
	  $(BUILD)/libvigil.a -lcmocka $(LDLIBS) -o $@

$(BUILD)/man/%.1: $(BUILD)/bin/%
	$(say) MAN $@
	$(Q)mkdir -p $(@D) && $< --help-man > $@

# The script with the tables of all programs in it.
$(COMPLETION): base/completion.bash $(BINARIES)
	$(say) GEN $@
	$(Q)mkdir -p $(@D) && { sed '/@TABLE@/,$$d' $< && \
	  for b in $(BINARIES); do $$b --help-completion || exit 1; done && \
	  sed '1,/@TABLE@/d' $<; } > $@

# --- Fuzzing: clang, libFuzzer, ASan and UBSan, objects of their own ---------------------------

FUZZ_FLAGS := -std=c11 -O2 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
  -fno-sanitize-recover=all -DVIGIL_FUZZING
FUZZ_OBJECTS := $(patsubst %.c,build/fuzz/%.o,$(filter-out kernels/%,$(SOURCES)))
build/fuzz/flags: FORCE
	$(call keep,$@,$(FUZZ_FLAGS) $(CPPFLAGS))
build/fuzz/objects: FORCE
	$(call keep,$@,$(FUZZ_OBJECTS))
build/fuzz/%.o: %.c build/fuzz/flags | build/deps/build build/deps/fuzz
	$(say) FUZZ $<
	$(Q)mkdir -p $(@D) && clang $(CPPFLAGS) $(FUZZ_FLAGS) $(FUZZ_COVERAGE) -MMD -MP -c $< -o $@
# What is held against the product guides no mutation, and only has to be quick.
FUZZ_COVERAGE := -fsanitize=fuzzer-no-link
$(FUZZ_HELPERS:%.c=build/fuzz/%.o): FUZZ_COVERAGE := -O2
build/fuzz/libvigil.a: $(FUZZ_OBJECTS) build/fuzz/objects
	$(Q)rm -f $@ && ar rcsD $@ $(FUZZ_OBJECTS)
build/fuzz/bin/%: build/fuzz/tests/fuzz/%.o $(FUZZ_HELPERS:%.c=build/fuzz/%.o) build/fuzz/libvigil.a
	$(say) LINK $@
	$(Q)mkdir -p $(@D) && clang $(FUZZ_FLAGS) -fsanitize=fuzzer $^ $(LDLIBS) -o $@

-include $(OBJECTS:.o=.d) $(MAINS:%.c=$(BUILD)/%.d) \
  $(patsubst %.c,$(BUILD)/%.d,$(wildcard tests/unit/*.c tests/faults/*.c)) \
  $(patsubst %.c,build/fuzz/%.d,$(filter-out kernels/%,$(SOURCES)) $(wildcard tests/fuzz/*.c))
