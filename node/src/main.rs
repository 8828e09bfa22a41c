//! The `wattle` program. Everything is in the library, where tests reach it.

/// Memory that many threads take and give back in turn goes back to the system. With the one of glibc, which keeps a
/// heap for each thread, a validator that read its log after a start stayed twice as large.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    wattle::cli::main()
}
