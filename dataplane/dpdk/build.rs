//! Compiles the C shim against the installed libdpdk.

fn main() {
    println!("cargo:rerun-if-changed=c/shim.c");
    println!("cargo:rerun-if-changed=c/shim.h");
    let library = pkg_config::Config::new()
        .atleast_version("22.11")
        .probe("libdpdk")
        .expect("libdpdk 22.11 or newer (Debian: libdpdk-dev and pkg-config)");
    let mut shim = cc::Build::new();
    shim.file("c/shim.c").opt_level(3).warnings_into_errors(true);
    shim.flag("-include").flag("rte_config.h");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        shim.flag("-march=x86-64-v2"); // what libdpdk's headers want at least
    }
    for path in &library.include_paths {
        shim.flag("-isystem").flag(path.to_str().expect("a path in UTF-8"));
    }
    shim.compile("meshwright_dpdk_shim");
}
