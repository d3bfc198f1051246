/* SPDX-License-Identifier: MIT */
/* new and delete in all forms, as the C++ library promises them. */
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#define CHECK(c) \
	do { \
		if (!(c)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #c); \
			_exit(1); \
		} \
	} while (0)

namespace {

struct alignas(128) wide {
	char bytes[384];
};

struct narrow {
	char bytes[40];
};

bool aligned(const void *p, size_t a)
{
	return reinterpret_cast<uintptr_t>(p) % a == 0;
}

void forms()
{
	for (int i = 0; i < 3000; i++) {
		size_t n = size_t(i) * 11 + 1;
		std::align_val_t a{ size_t(1) << (i % 14 + 3) };

		void *p[8] = { ::operator new(n), ::operator new[](n), ::operator new(n, std::nothrow),
			::operator new[](n, std::nothrow), ::operator new(n, a), ::operator new[](n, a),
			::operator new(n, a, std::nothrow), ::operator new[](n, a, std::nothrow) };
		for (int k = 0; k < 8; k++) {
			CHECK(p[k] && aligned(p[k], k < 4 ? 16 : size_t(a)));
			memset(p[k], k, n);
		}
		for (int k = 0; k < 8; k++)
			for (size_t b = 0; b < n; b += 7)
				CHECK(static_cast<char *>(p[k])[b] == k);
		if (i % 3 == 0) {
			::operator delete(p[0]);
			::operator delete[](p[1]);
			::operator delete(p[2], std::nothrow);
			::operator delete[](p[3], std::nothrow);
			::operator delete(p[4], a);
			::operator delete[](p[5], a);
			::operator delete(p[6], a, std::nothrow);
			::operator delete[](p[7], a, std::nothrow);
		} else {
			::operator delete(p[0], n);
			::operator delete[](p[1], n);
			::operator delete(p[2], n);
			::operator delete[](p[3], n);
			::operator delete(p[4], n, a);
			::operator delete[](p[5], n, a);
			::operator delete(p[6], n, a);
			::operator delete[](p[7], n, a);
		}
	}
	::operator delete(nullptr);
	::operator delete[](nullptr);
	::operator delete(nullptr, size_t(3));
	::operator delete(nullptr, std::align_val_t(64));
	void *z = ::operator new(0), *y = ::operator new(0);
	CHECK(z && y && z != y);
	::operator delete(z);
	::operator delete(y);
}

void objects()
{
	std::vector<std::unique_ptr<wide>> w;
	std::vector<narrow *> v;
	std::map<int, std::string> m;
	std::unordered_map<std::string, std::vector<int>> u;

	for (int i = 0; i < 20000; i++) {
		w.emplace_back(new wide);
		CHECK(aligned(w.back().get(), 128));
		if (i % 3)
			w.pop_back();
		v.push_back(new narrow);
		m[i * 7919 % 10007] += std::to_string(i);
		u[std::to_string(i % 500)].push_back(i);
	}
	for (auto *p : v)
		delete p;
	size_t n = 0;
	for (auto &k : u)
		n += k.second.size();
	CHECK(n == 20000 && m.size() == 10007);
	for (int i = 0; i < 10; i++)
		std::thread([&] { std::string s(100000, 'x'); delete new wide; delete[] new narrow[i + 1]; }).join();
}

int handled;
void *volatile sink;     /* else the compiler leaves out what nobody looks at */
void *spare;

void handler()
{
	handled++;
	if (spare) {
		munmap(spare, 200 << 20);
		spare = nullptr;
		return;
	}
	std::set_new_handler(nullptr);
}

void throwing_handler()
{
	handled++;
	throw std::bad_alloc();
}

template <typename F> bool throws(F f)
{
	try {
		f();
	} catch (const std::bad_alloc &) {
		return true;
	}
	return false;
}

/* Memory is out: the handler is called, again and again, and may help; else bad_alloc, or nullptr where asked. */
void no_memory()
{
	const size_t n = 150 << 20;
	const std::align_val_t a{ 256 };
	struct rlimit r;

	spare = mmap(nullptr, 200 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(spare != MAP_FAILED);
	free(malloc(100));
	{
		size_t pages = 0;
		FILE *f = fopen("/proc/self/statm", "r");

		CHECK(f && fscanf(f, "%zu", &pages) == 1);
		fclose(f);
		r.rlim_cur = r.rlim_max = pages * 4096 + (16 << 20);
	}
	CHECK(setrlimit(RLIMIT_AS, &r) == 0);
	CHECK(throws([&] { sink = ::operator new(n); }));
	std::set_new_handler(throwing_handler);
	CHECK(throws([&] { sink = ::operator new[](n); }) && handled == 1);
	CHECK(::operator new(n, std::nothrow) == nullptr && handled == 2);
	CHECK(::operator new(n, a, std::nothrow) == nullptr && handled == 3);
	CHECK(::operator new[](n, a, std::nothrow) == nullptr && handled == 4);
	CHECK(throws([&] { sink = ::operator new(n, a); }) && handled == 5);
	CHECK(throws([&] { sink = ::operator new[](n, a); }) && handled == 6);
	volatile std::size_t most = SIZE_MAX - 10;      /* the compiler would see that it cannot be had */

	CHECK(throws([&] { sink = ::operator new(most); }) && handled == 7);
	CHECK(throws([] { sink = ::operator new(PTRDIFF_MAX, std::align_val_t(4096)); }) && handled == 8);

	std::set_new_handler(handler);
	handled = 0;
	void *p = ::operator new(n);          /* the handler gives up the spare memory */
	CHECK(p && handled == 1 && !spare);
	CHECK(throws([&] { sink = ::operator new(n); }) && handled == 2);
	CHECK(std::get_new_handler() == nullptr);
	CHECK(::operator new(n, std::nothrow) == nullptr && handled == 2);
	CHECK(throws([] { std::vector<int> v(size_t(1) << 40); }));
	::operator delete(p);
	std::set_new_handler(handler);
	p = ::operator new(n, a, std::nothrow);
	CHECK(p && handled == 2 && aligned(p, 256));
	::operator delete(p, a);
}

/* Destructors of thread_local objects run late in a thread's end: they free and allocate. */
struct late {
	std::vector<std::string> held;
	~late()
	{
		for (auto &s : held)
			s += std::string(500, 'y');
		for (auto &s : held)
			CHECK(s.substr(s.size() - 500) == std::string(500, 'y'));
		std::map<int, std::string> m;
		for (int i = 0; i < 100; i++)
			m[i] = std::string(size_t(i), 'z');
	}
};

thread_local late first;
thread_local std::unique_ptr<late> second;

void thread_locals()
{
	for (int round = 0; round < 40; round++) {
		std::vector<std::thread> t;

		for (int k = 0; k < 6; k++)
			t.emplace_back([k] {
				for (int i = 0; i < 200; i++)
					first.held.push_back(std::string(size_t(i * k + 1), 'x'));
				second.reset(new late);
				second->held = first.held;
			});
		for (auto &x : t)
			x.join();
	}
	first.held.push_back("of the main thread");
}

/* Before main, and after it. */
struct global {
	std::vector<std::string> v;
	global() : v(1000, std::string(100, 'g')) {}
	~global()
	{
		for (auto &s : v)
			CHECK(s == std::string(100, 'g'));
		v.clear();
		v.shrink_to_fit();
		delete new wide;
	}
} global_one;

const struct {
	const char *name;
	void (*run)();
} cases[] = {
	{ "forms", forms },
	{ "objects", objects },
	{ "no-memory", no_memory },
	{ "thread-locals", thread_locals },
};

}

int main(int argc, char **argv)
{
	for (auto &c : cases) {
		if (argc > 1 && !strcmp(argv[1], "--list")) {
			puts(c.name);
		} else if (argc > 1 && !strcmp(argv[1], c.name)) {
			c.run();
			return 0;
		}
	}
	return argc > 1 && !strcmp(argv[1], "--list") ? 0 : 2;
}
