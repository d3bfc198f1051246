# Firn: a thin front of meson.  `make help` lists the targets.
BUILD ?= build
PREFIX ?= /usr/local
MESON ?= meson
NINJA ?= ninja

# In a folder that was built before the library had a version, ninja takes the link for an old output of its own.
relink = [ -e $(1)/libfirnmalloc.so ] || $(MESON) setup --reconfigure $(1) . >/dev/null

all: $(BUILD)/build.ninja
	@$(NINJA) -C $(BUILD)
	@$(call relink,$(BUILD))

help:
	@echo 'make              build into $(BUILD)/ (BUILD=dir for another place)'
	@echo 'make demo         freeze and thaw a real redis-server (root)'
	@echo 'make demo-pressure  three servers give their memory to a job that matters more (root)'
	@echo 'make check        every check and test (root for the live ones); ends with one line of counts'
	@echo 'make check-kernels  live tests in a virtual machine: Debian'"'"'s kernel and systemd (root; ARGS=--full for all)'
	@echo 'make unit         the unit tests alone'
	@echo 'make bench        freeze and thaw beside swap, zswap and zram (root; ARGS=--quick for a first look)'
	@echo 'make bench-malloc the allocator beside others (root; ARGS=--quick for a first look)'
	@echo 'make install      into PREFIX=$(PREFIX), below DESTDIR'
	@echo 'make clang|asan|tsan   another build, in build-clang/, build-asan/, build-tsan/'
	@echo 'make mallocchecks  libfirnmalloc.so that checks itself, in build-mallocchecks/'
	@echo 'make clean        remove the build folders'

$(BUILD)/build.ninja:
	@$(MESON) setup $(MESON_ARGS) $(BUILD) .

clang:
	@CC=clang $(MAKE) --no-print-directory BUILD=build-clang all

asan:
	@$(MAKE) --no-print-directory BUILD=build-asan \
		MESON_ARGS='-Db_sanitize=address,undefined -Db_lundef=false' all

tsan:
	@$(MAKE) --no-print-directory BUILD=build-tsan \
		MESON_ARGS='-Db_sanitize=thread -Db_lundef=false -Db_pie=false' all

# The allocator that verifies its invariants after every operation.
mallocchecks:
	@[ -e build-mallocchecks/build.ninja ] || $(MESON) setup -Dmalloc_checks=full build-mallocchecks . >/dev/null
	@$(NINJA) -C build-mallocchecks malloc
	@$(call relink,build-mallocchecks)

# The allocator's random test under TSan, which wants its addresses where they were.
malloctsan:
	@[ -e build-tsan/build.ninja ] || $(MESON) setup -Db_sanitize=thread -Db_lundef=false -Db_pie=false \
		build-tsan . >/dev/null
	@$(NINJA) -C build-tsan tests/unit/test_malloc_random
	@TSAN_OPTIONS=halt_on_error=1 setarch -R build-tsan/tests/unit/test_malloc_random

demo: all
	@BUILD=$(abspath $(BUILD)) tools/demo

# Three servers give their memory to a job that matters more.
demo-pressure: all
	@BUILD=$(abspath $(BUILD)) tools/demo-pressure

unit: all
	@$(MESON) test -C $(BUILD) --no-rebuild --suite unit --print-errorlogs

check:
	@BUILD=$(BUILD) tools/check-all

check-kernels: all
	@. tools/packages.sh && firn_packages $$FIRN_GUEST_PACKAGES
	@BUILD=$(BUILD) tools/check-kernels $(ARGS)

includes:
	@tools/check-includes

bench: all
	@. tools/packages.sh && firn_packages $$FIRN_BENCH_PACKAGES
	@BUILD=$(abspath $(BUILD)) bench/run $(ARGS)

bench-malloc: all
	@. tools/packages.sh && firn_packages $$FIRN_BENCH_MALLOC_PACKAGES
	@BUILD=$(abspath $(BUILD)) bench/malloc/run $(ARGS)

install: $(BUILD)/build.ninja
	@$(MESON) configure $(BUILD) -Dprefix=$(PREFIX)
	@$(NINJA) -C $(BUILD)
	@$(MESON) install -C $(BUILD) --no-rebuild

clean:
	rm -rf build build-clang build-asan build-tsan build-mallocchecks $(BUILD)

.PHONY: all help clang asan tsan mallocchecks malloctsan demo demo-pressure unit check check-kernels includes bench bench-malloc install clean
