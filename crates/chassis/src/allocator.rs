/// Makes jemalloc the program's allocator. Once, in each `main.rs`.
///
/// Heap profiling is compiled in; `monitoring.profiling` says whether it is awake from the start. The environment's
/// `MALLOC_CONF` overrides each option: `MALLOC_CONF=prof:false` leaves nothing to be woken.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::tikv_jemallocator::Jemalloc = $crate::tikv_jemallocator::Jemalloc;

        /// Read by jemalloc before `main`. What has been allocated is counted on after it was freed (`prof_accum`), for
        /// `/debug/pprof/allocs`.
        #[expect(
            unsafe_code,
            reason = "jemalloc finds its options by the name of a symbol"
        )]
        #[unsafe(export_name = "malloc_conf")]
        static MALLOC_CONF: &[u8] = b"prof:true,prof_active:false,lg_prof_sample:19,prof_accum:true\0";
    };
}
