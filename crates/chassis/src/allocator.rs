/// Makes jemalloc the program's allocator. Once, in each `main.rs`.
///
/// Heap profiling is compiled in and asleep: it can be woken in a running process, and costs nothing until then.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::tikv_jemallocator::Jemalloc = $crate::tikv_jemallocator::Jemalloc;

        /// Read by jemalloc before `main`; one sample every 512 KiB once profiling is active.
        #[expect(
            unsafe_code,
            reason = "jemalloc finds its options by the name of a symbol"
        )]
        #[unsafe(export_name = "malloc_conf")]
        static MALLOC_CONF: &[u8] = b"prof:true,prof_active:false,lg_prof_sample:19\0";
    };
}
