//! Generates messages and services from the repository's `proto/` folder with a compiler written in Rust, so that a
//! fresh machine needs no protoc. Of `google.rpc` we need one message: its facts are stated here, no file is copied.

use std::error::Error;
use std::path::{Path, PathBuf};

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

/// Field names, types and numbers of google.rpc.Status.
const STATUS: &str = r#"
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
"#;

struct GoogleRpc;

impl FileResolver for GoogleRpc {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "google/rpc/status.proto" => File::from_source(name, STATUS),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto");
    println!("cargo:rerun-if-changed={}", protos.display());
    let mut files = Vec::new();
    collect(&protos, &mut files)?;
    files.sort();
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(protos.clone()));
    resolver.add(GoogleRpc);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        compiler.open_file(file)?;
    }
    tonic_prost_build::configure()
        .include_file("api.rs")
        .bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Not the templates of adapters: nothing native knows their messages by name.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder.ends_with("istio/mixer/template") {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
