# SPDX-License-Identifier: Apache-2.0
#
# Vigil. `make help` lists the targets.
#
# build/            objects, libvigil.a, programs in build/bin, tests in build/tests
# build/asan, tsan  the same tree with sanitizers: make SANITIZE=address,undefined TARGET
# build/lib/vigil   libvigil_cuda.so: make cuda, the one part that needs CUDA (docs/BUILD.md)
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
CXX := g++
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
# Sections of their own, so that a program holds what it uses of libvigil.a and no more.
CFLAGS := -std=c11 -O2 -g -ffunction-sections -fdata-sections $(WARNINGS) $(HARDEN) -ffile-prefix-map=$(CURDIR)=. \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
CPPFLAGS := -I. -D_GNU_SOURCE -DVIGIL_VERSION='"$(VERSION)"'
LDFLAGS := -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code -Wl,--as-needed,--gc-sections \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LDLIBS := -lmicrohttpd -ljansson -lgnutls -lsqlite3 -lpq -lnats -lcurl -lwslay -lexttextcat-2.0 -lz -lm -lpthread -ldl

# Folders where every implicit conversion is an error.
STRICT := base/% store/% client/%
STRICT_FLAGS := -Wconversion -Wsign-conversion

# ASan's stand-in for the stack aligns to less than a vector of 64 bytes: not in kernels.
KERNEL_FLAGS := -O3 -fno-function-sections -fno-data-sections -ffp-contract=fast -fno-math-errno -fno-trapping-math \
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
UNWATCHED := kernels/cpu/gemm_%.c kernels/cpu/operators_%.c model/reference.c \
  kernels/cuda/%.cu tests/cuda/emulation/%.cc
endif
# Where Debian has headers that are not beside all others.
headers_for = $(if $(filter store/database/postgres.c,$1),-isystem /usr/include/postgresql)
flags_for = $(if $(filter kernels/cpu/%,$1),$(KERNEL_FLAGS),$(GUARD)) \
  $(if $(filter $(UNWATCHED),$1),-fno-sanitize=thread) \
  $(if $(filter $(STRICT),$1),$(STRICT_FLAGS)) \
  $(if $(filter %_avx2.c,$1),$(AVX2)) \
  $(if $(filter %_avx512.c,$1),$(AVX512) $(AVX512_VNNI)) \
  $(if $(filter %_avx512bf16.c,$1),$(AVX512) $(AVX512_BF16)) \
  $(call headers_for,$1) \
  $(if $(filter %/isa.c,$1),$(ISA_FLAGS))

# --- What there is -------------------------------------------------------------------------

# name:file with main
PROGRAMS := vigil:base/main.c vigil-tokenize:tokenizer/main.c vigil-model:weights/main.c \
  vigil-serve:server/main.c vigil-classify:server/classify.c vigil-bench:bench/main.c \
  vigil-doctor:server/doctor.c vigil-stream:client/stream.c vigil-enrich:client/enrich.c \
  vigil-query:store/query.c vigil-export:store/export.c vigil-erase:store/erase.c \
  vigil-dlq:store/dlq.c
main_of = $(lastword $(subst :, ,$(filter $1:%,$(PROGRAMS))))
FOLDERS := base tokenizer weights model kernels kernels/cpu store store/database store/queue store/lake \
  client client/intake client/select client/sources client/net client/worker server bench

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
# The CUDA engine: its kernels, its host side, and what of the tree its shared object has a
# copy of. Its tests run on an emulation of CUDA, and the same on a GPU.
CUDA_KERNELS := $(wildcard kernels/cuda/*.cu)
CUDA_HOST := $(wildcard kernels/cuda/*.c)
CUDA_BORROWED := base/clock.c base/memory.c base/status.c model/batch.c model/tensor.c
EMULATION := $(wildcard tests/cuda/emulation/*.cc)
CUDA_TEST_HELPERS := $(filter-out tests/cuda/test_%,$(wildcard tests/cuda/*.c))
GPU_TESTS := $(patsubst tests/cuda/%.c,$(BUILD)/gpu/%,$(wildcard tests/cuda/test_*.c))
CUDA_TESTS := $(GPU_TESTS:$(BUILD)/gpu/%=$(BUILD)/cuda-emulated/%) \
  $(patsubst tests/cuda/%.cc,$(BUILD)/cuda-emulated/%,$(wildcard tests/cuda/test_*.cc))
CUDA_LIBRARY := $(BUILD)/lib/vigil/libvigil_cuda.so
EMULATED_LIBRARY := $(if $(EMULATION),$(BUILD)/cuda-emulated/libvigil_cuda.so)
MAN_PAGES := $(NAMES:%=$(BUILD)/man/%.1)
COMPLETION := $(BUILD)/completion/vigil.bash

# --- Targets for people --------------------------------------------------------------------

.PHONY: help all run cuda test unit e2e faults test-pipeline test-cuda test-clients test-emulated emulated fuzz \
  asan tsan lint fmt bench check-cuda gpu-tests gpu-check gpu-pack gpu-bench install uninstall info clean \
  size deps tests FORCE

help:
	@printf '%s\n' \
	  'Use' \
	  '  run            build, then the whole way: a thousand posts, server on port 8080 (PORT=)' \
	  '  all            build the programs, man pages and shell completion (the default)' \
	  '  cuda           build the engine for NVIDIA GPUs: needs nvcc (docs/BUILD.md)' \
	  '  install        install under PREFIX (/usr/local), staged in DESTDIR' \
	  '  uninstall      remove what install put there' \
	  '  deps           install every Debian package that any target needs' \
	  'Check' \
	  '  test           every test that needs no network and no GPU: unit, faults, cuda, e2e' \
	  '  unit           unit tests alone; faults: no memory, no power, no space; e2e: real processes' \
	  '  test-pipeline  kills, broken networks, clocks, bad sources: lost 0, doubled 0 (TIER=night: more)' \
	  '  test-cuda      the CUDA engine on an emulation of CUDA' \
	  '  test-clients   clients from PyPI against a server, in a scratch environment' \
	  '  test-emulated  the AVX-512 kernels on any processor with AVX2' \
	  '  asan  tsan     unit, fault and end-to-end tests under sanitizers' \
	  '  fuzz           each fuzz target for FUZZ_SECONDS (60); FUZZ= names some of them' \
	  '  lint           format, static analysis, house rules;  fmt: format in place' \
	  '  bench          the figures of bench/README.md' \
	  '  check-cuda     the CUDA kernels compiled for every GPU: warnings, registers, spills' \
	  '  gpu-check      the CUDA engine on the GPU of this machine;  gpu-bench: its times' \
	  'Look' \
	  '  info           what was detected here;  size: stripped programs, at most 5 MB' \
	  '  clean          remove build/' \
	  'Variables: V=1 shows commands, BUILD= another build folder, SANITIZE= (see asan), CC=,' \
	  '           CUDA_HOME= the toolkit, CUDA_ARCHS="70 90" or native, CUDA_HOST_CXX='

all: $(BINARIES) $(MAN_PAGES) $(COMPLETION)

PORT ?= 8080
run: all
	@exec client/demo/run --build $(BUILD) --port $(PORT)

cuda: $(CUDA_LIBRARY)

tests: $(UNIT_TESTS) $(FAULT_TESTS) $(CUDA_TESTS) $(EMULATED_LIBRARY)
test: all tests
	@tests/run --build $(BUILD)
unit: $(UNIT_TESTS)
	@tests/run --build $(BUILD) unit
faults: $(FAULT_TESTS)
	@tests/run --build $(BUILD) faults
TIER ?= ci
test-pipeline: all $(addprefix $(BUILD)/faults/test_,power lake disk_full)
	@tests/faults/pipeline/run --build $(BUILD) --tier $(TIER) $(if $(SCENARIOS),--only $(SCENARIOS))
test-cuda: $(CUDA_TESTS)
	@tests/run --build $(BUILD) cuda
# Some of these run unit tests over a real server.
e2e: all $(EMULATED_LIBRARY) $(filter $(addprefix $(BUILD)/tests/test_,database store% queue lake worker),$(UNIT_TESTS))
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
check-cuda:
	@tests/cuda/compile --build $(BUILD) --jobs $(JOBS) $(if $(cuda_problem),,--cuda-home $(CUDA_HOME))
gpu-tests: $(GPU_TESTS) $(BUILD)/gpu/libvigil_cuda.so
gpu-check:
	@tests/cuda/gpu-check --build $(BUILD)
# What a machine with a GPU needs and cannot install, in .gpu.
gpu-pack:
	@tests/cuda/pack-for-gpu --build $(BUILD)
gpu-bench: all gpu-tests
	@bench/gpu --build $(BUILD)

lint: $(MAN_PAGES)
	@tests/lint/run --build $(BUILD) --jobs $(JOBS)
tracked_c = $(shell git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cc')
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
	@echo 'CUDA      $(cuda_info)'
	@echo 'GPU       $(or $(shell nvidia-smi --query-gpu=name$(comma)compute_cap --format=csv$(comma)noheader 2>/dev/null | paste -sd ';'),none)'
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
	@if [ -e $(CUDA_LIBRARY) ]; then set -x; install -d $(DESTDIR)$(PREFIX)/lib/vigil && \
	  install -s -m 644 $(CUDA_LIBRARY) $(DESTDIR)$(PREFIX)/lib/vigil; fi

uninstall:
	rm -f $(NAMES:%=$(DESTDIR)$(PREFIX)/bin/%) \
	  $(NAMES:%=$(DESTDIR)$(PREFIX)/share/man/man1/%.1) \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vigil
	rm -rf $(DESTDIR)$(PREFIX)/share/vigil $(DESTDIR)$(PREFIX)/lib/vigil

clean:
	rm -rf $(BUILD)

# --- Packages ------------------------------------------------------------------------------

# Only the targets that promise it install packages; a plain `make` says what is missing.
installing := $(filter run test test-emulated emulated unit faults test-pipeline test-cuda e2e asan tsan lint fuzz test-clients check-cuda deps,$(MAKECMDGOALS))
deps_mode := $(if $(installing),,--check)
build/deps/%: docker/install-deps
	@docker/install-deps $(deps_mode) $*
	@mkdir -p $(@D) && touch $@
deps: build/deps/build build/deps/test build/deps/lint build/deps/fuzz build/deps/clients build/deps/cuda
test test-emulated unit faults test-pipeline test-cuda e2e tests: | build/deps/test
lint fmt: | build/deps/lint
test-clients: | build/deps/clients
check-cuda: | build/deps/cuda

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
$(BUILD)/client/select/watch_list.o build/fuzz/client/select/watch_list.o: client/select/watch_list.txt
$(BUILD)/client/select/place.o build/fuzz/client/select/place.o: client/select/place_names.txt
$(BUILD)/store/database/schema.o build/fuzz/store/database/schema.o: $(wildcard store/database/schema/*.sql)
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
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(filter %.o,$^) $(BUILD)/libvigil.a -lcmocka $(LDLIBS) -o $@

# A source by itself, for the end-to-end tests of sources.
DRIVERS := $(patsubst tests/drivers/%.c,$(BUILD)/drivers/%,$(wildcard tests/drivers/*.c))
$(BUILD)/drivers/%: $(BUILD)/tests/drivers/%.o $(BUILD)/libvigil.a $(BUILD)/flags-link
	$(say) LINK $@
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) $(filter %.o,$^) $(BUILD)/libvigil.a $(LDLIBS) -o $@
tests test e2e: $(DRIVERS)

# Our calls for memory and files go through the test, which can say no.
WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=posix_memalign,--wrap=strdup \
  -Wl,--wrap=open,--wrap=write,--wrap=fsync,--wrap=rename,--wrap=unlink,--wrap=mkdir,--wrap=close
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

# --- CUDA ----------------------------------------------------------------------------------

# Each of these is asked for when a CUDA target is made, and then once.
once = $(eval $1 := $(subst $$,$$$$,$(shell $2)))$($1)
CUDA_HOME ?= $(or $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v nvcc 2>/dev/null))),$(patsubst \
  %/bin/nvcc,%,$(wildcard /usr/local/cuda/bin/nvcc)))
NVCC = $(if $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc))
cuda_version = $(if $(NVCC),$(call once,cuda_version,$(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'))
# What servers have (docs/BUILD.md), of what this nvcc knows: no release knows all of them.
CUDA_WANTED := 70 75 80 86 89 90 100 120
cuda_known = $(if $(NVCC),$(call once,cuda_known,$(NVCC) --list-gpu-arch | sed -n 's/^compute_//p'))
cuda_native = $(call once,cuda_native,nvidia-smi --query-gpu=compute_cap --format=csv$(comma)noheader 2>/dev/null | tr -d . | sort -nu)
CUDA_ARCHS ?= $(filter $(cuda_known),$(CUDA_WANTED))
cuda_archs = $(if $(filter native,$(CUDA_ARCHS)),$(cuda_native),$(CUDA_ARCHS))
gpu_archs = $(or $(if $(filter command environment,$(origin CUDA_ARCHS)),,$(cuda_native)),$(cuda_archs))
# nvcc 11 takes no g++ after 11.
CUDA_HOST_CXX ?= $(if $(filter 11.%,$(cuda_version)),$(or $(shell command -v g++-11),$(CXX)),$(CXX))
# Debian's toolkit lies where the compiler looks anyhow.
cuda_include = $(if $(filter /usr,$(CUDA_HOME)),,-isystem $(CUDA_HOME)/include)
cuda_lib = $(patsubst %/,%,$(dir $(firstword $(wildcard $(addsuffix /libcudart_static.a,$(addprefix \
  $(CUDA_HOME)/,lib64 targets/x86_64-linux/lib lib/x86_64-linux-gnu lib))))))
cuda_blas = $(wildcard $(cuda_lib)/libcublasLt.so)
cuda_problem = $(strip $(if $(NVCC),$(if $(cuda_lib),$(if $(cuda_blas),$(if $(cuda_archs),,no architecture \
  to compile for: CUDA_ARCHS is "$(CUDA_ARCHS)"),no libcublasLt.so in $(cuda_lib)),no libcudart_static.a in \
  $(CUDA_HOME)),no nvcc $(if $(CUDA_HOME),in $(CUDA_HOME)/bin,on PATH or in /usr/local/cuda)))
cuda_info = $(strip $(if $(NVCC),$(cuda_version) in $(CUDA_HOME)$(comma) $(if $(cuda_blas),with,without) \
  cuBLASLt$(comma) for $(cuda_archs:%=sm_%),none: no nvcc$(comma) so make cuda cannot run; docs/BUILD.md))

# Line numbers, for profilers, make the library four times as large; the packing that makes up
# for it needs a driver of CUDA 12.4 or later, which CUDA 13 needs anyhow.
NVCC_FLAGS = -std=c++17 -O3 -lineinfo $(if $(filter 11.% 12.%,$(cuda_version)),,-compress-mode=size) \
  -Xptxas -v -Werror all-warnings -Wno-deprecated-gpu-targets \
  -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wshadow=local,-Wvla,-Werror
PIC_FLAGS := $(subst -fPIE,-fPIC,$(CFLAGS)) -fvisibility=hidden
# Nothing may be missing, and nothing but plugin.h's symbol is seen from outside.
SHARED_FLAGS := -shared -Wl,--version-script=kernels/cuda/plugin.map -Wl,-z,defs,-z,relro,-z,now \
  -Wl,-z,noexecstack,--as-needed $(if $(SANITIZE),-fsanitize=$(SANITIZE))
one_symbol = nm -D --defined-only $@ | awk '$$NF != "vigil_cuda_plugin" { bad = 1; print "$@ exports " $$NF } \
  END { exit bad }'
# The runtimes of CUDA and C++ go in, so that a machine needs the driver and libcublasLt alone.
# That is looked for beside the object, in the toolkit that built it, and where the system looks.
CUDA_LINK = -static-libstdc++ -static-libgcc -L$(cuda_lib) -Wl,-rpath,'$$ORIGIN$(if $(filter /usr,$(CUDA_HOME)),,:$(cuda_lib))' \
  -lcublasLt -lcudart_static -lrt -lpthread -ldl -lm

# cuda_rules(folder, architectures): the objects with CUDA itself. ptxas tells registers and
# spills into FILE.log, which tests/cuda/registers reads.
define cuda_rules
$1/flags: FORCE
	@$$(if $$(cuda_problem),echo 'vigil: cannot compile CUDA: $$(cuda_problem). docs/BUILD.md says what to install' >&2; exit 1)
	$$(call keep,$$@,$$(NVCC) $$(cuda_version) $2 $$(CUDA_HOST_CXX) $$(NVCC_FLAGS) $$(compiler) $$(PIC_FLAGS) $$(GUARD) $$(CPPFLAGS))
$1/%.o: %.cu $1/flags
	$$(say) NVCC $$<
	$$(Q)mkdir -p $$(@D) && $$(NVCC) -ccbin $$(CUDA_HOST_CXX) $$(NVCC_FLAGS) -I. \
	  $$(foreach a,$2,-gencode arch=compute_$$a$$(comma)code=sm_$$a) \
	  -gencode arch=compute_$$(lastword $2)$$(comma)code=compute_$$(lastword $2) \
	  -MMD -MP -MF $$(@:.o=.d) -c $$< -o $$@ >$$(@:.o=.log) 2>&1 || { cat $$(@:.o=.log) >&2; exit 1; }
$1/%.o: %.c $1/flags
	$$(say) CC $$<
	$$(Q)mkdir -p $$(@D) && $$(CC) $$(CPPFLAGS) $$(cuda_include) $$(PIC_FLAGS) $$(call flags_for,$$<) \
	  -DVIGIL_CUDA_BUILT_FOR='"$$(addprefix sm_,$2) (CUDA $$(cuda_version))"' -MMD -MP -c $$< -o $$@
endef
$(eval $(call cuda_rules,$(BUILD)/cuda,$$(cuda_archs)))
$(eval $(call cuda_rules,$(BUILD)/gpu,$$(gpu_archs)))
objects_in = $(patsubst %,$1/%.o,$(basename $2))

$(CUDA_LIBRARY): $(call objects_in,$(BUILD)/cuda,$(CUDA_KERNELS) $(CUDA_HOST) $(CUDA_BORROWED))
$(BUILD)/gpu/libvigil_cuda.so: $(call objects_in,$(BUILD)/gpu,$(CUDA_KERNELS) $(CUDA_HOST) $(CUDA_BORROWED))
$(CUDA_LIBRARY) $(BUILD)/gpu/libvigil_cuda.so: kernels/cuda/plugin.map
	$(say) LINK $@
	$(Q)mkdir -p $(@D) && $(CXX) $(SHARED_FLAGS) $(filter %.o,$^) $(CUDA_LINK) -o $@ && $(one_symbol)

# A machine with a GPU may have nvcc, g++, make and no more: its tests are linked with what of
# the tree needs no library.
GPU_TEST_SOURCES := $(filter-out base/json.c base/json_guard.c base/sha256.c base/fault.c base/auth.c base/main.c model/config.c, \
  $(wildcard base/*.c model/*.c))
$(BUILD)/gpu/libvigil.a: $(call objects_in,$(BUILD)/gpu,$(GPU_TEST_SOURCES))
	$(Q)rm -f $@ && ar rcsD $@ $^
$(GPU_TESTS): $(BUILD)/gpu/test_%: $(BUILD)/gpu/tests/cuda/test_%.o $(call objects_in,$(BUILD)/gpu, \
    $(CUDA_TEST_HELPERS) $(CUDA_KERNELS) $(CUDA_HOST)) $(BUILD)/gpu/libvigil.a
	$(say) LINK $@
	$(Q)$(CXX) $(LDFLAGS) $^ $(CUDA_LINK) -o $@

# The same sources without CUDA: tests/cuda/emulation has the headers, and a device made of
# the processor. What a kernel leaves unset is garbage here too. ASan's stand-in for the stack
# would make every fiber ten times slower.
EMULATED := $(BUILD)/cuda-emulated
EMULATED_CPPFLAGS := -Itests/cuda/emulation -DVIGIL_CUDA_EMULATION -DVIGIL_CUDA_BUILT_FOR='"emulation"'
EMULATED_CXXFLAGS := -std=c++17 -O2 -g -mf16c -Wall -Wextra -Wshadow=local -Wvla -Wundef -Werror -Wno-unknown-pragmas \
  -fPIC -fvisibility=hidden -fno-strict-aliasing -fno-math-errno -ffile-prefix-map=$(CURDIR)=. \
  $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer, \
  -ftrivial-auto-var-init=pattern) $(if $(findstring address,$(SANITIZE)),--param=asan-use-after-return=0)
$(EMULATED)/flags: FORCE
	$(call keep,$@,$(shell $(CXX) --version 2>/dev/null | head -n 1) $(EMULATED_CPPFLAGS) $(EMULATED_CXXFLAGS) $(compiler) $(PIC_FLAGS) $(GUARD) $(CPPFLAGS))
emulated_cxx = $(Q)mkdir -p $(@D) && $(CXX) $(CPPFLAGS) $(EMULATED_CPPFLAGS) $(EMULATED_CXXFLAGS) \
  $(if $(filter $(UNWATCHED),$<),-fno-sanitize=thread) -MMD -MP -x c++ -c $< -o $@
$(EMULATED)/%.o: %.cu $(EMULATED)/flags | build/deps/test
	$(say) CXX $<
	$(emulated_cxx)
$(EMULATED)/%.o: %.cc $(EMULATED)/flags | build/deps/test
	$(say) CXX $<
	$(emulated_cxx)
$(EMULATED)/%.o: %.c $(EMULATED)/flags | build/deps/build
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(EMULATED_CPPFLAGS) $(PIC_FLAGS) $(call flags_for,$<) -MMD -MP -c $< -o $@
EMULATED_OBJECTS := $(call objects_in,$(EMULATED),$(CUDA_KERNELS) $(CUDA_HOST) $(EMULATION))
$(EMULATED)/libvigil_cuda.so: $(EMULATED_OBJECTS) $(call objects_in,$(EMULATED),$(CUDA_BORROWED)) \
    kernels/cuda/plugin.map
	$(say) LINK $@
	$(Q)$(CXX) $(SHARED_FLAGS) $(filter %.o,$^) -lm -lpthread -o $@ && $(one_symbol)
$(CUDA_TESTS): $(EMULATED)/test_%: $(EMULATED)/tests/cuda/test_%.o $(EMULATED_OBJECTS) \
    $(call objects_in,$(EMULATED),$(CUDA_TEST_HELPERS)) $(BUILD)/libvigil.a $(BUILD)/flags-link
	$(say) LINK $@
	$(Q)$(CXX) $(LDFLAGS) $(filter %.o,$^) $(BUILD)/libvigil.a $(LDLIBS) -o $@

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
	$(Q)mkdir -p $(@D) && clang $(CPPFLAGS) $(call headers_for,$<) $(FUZZ_FLAGS) $(FUZZ_COVERAGE) -MMD -MP -c $< -o $@
# What is held against the product guides no mutation, and only has to be quick.
FUZZ_COVERAGE := -fsanitize=fuzzer-no-link
$(FUZZ_HELPERS:%.c=build/fuzz/%.o): FUZZ_COVERAGE := -O2
build/fuzz/libvigil.a: $(FUZZ_OBJECTS) build/fuzz/objects
	$(Q)rm -f $@ && ar rcsD $@ $(FUZZ_OBJECTS)
build/fuzz/bin/%: build/fuzz/tests/fuzz/%.o $(FUZZ_HELPERS:%.c=build/fuzz/%.o) build/fuzz/libvigil.a
	$(say) LINK $@
	$(Q)mkdir -p $(@D) && clang $(FUZZ_FLAGS) -fsanitize=fuzzer $^ $(LDLIBS) -o $@

-include $(OBJECTS:.o=.d) $(MAINS:%.c=$(BUILD)/%.d) \
  $(patsubst %.c,$(BUILD)/%.d,$(wildcard tests/unit/*.c tests/faults/*.c tests/drivers/*.c)) \
  $(foreach f,cuda gpu cuda-emulated,$(addsuffix .d,$(addprefix $(BUILD)/$f/,$(basename $(CUDA_KERNELS) \
  $(CUDA_HOST) $(CUDA_BORROWED) $(EMULATION) $(GPU_TEST_SOURCES) $(wildcard tests/cuda/*.c tests/cuda/*.cc))))) \
  $(patsubst %.c,build/fuzz/%.d,$(filter-out kernels/%,$(SOURCES)) $(wildcard tests/fuzz/*.c))
